"""What is saved as notebooks share their trainings."""

import pandas as pd

from miewid_core.paper import plan
from miewid_core.paper.study import Study


def bill(study: Study, preset: str) -> pd.DataFrame:
    """Per notebook, then "all": trainings it asks for, and photos shown in all their epochs.

    Columns notebook, trainings, photos, new_trainings, new_photos (of those that no earlier
    notebook asked for). A notebook that trained for itself would show `photos`.
    """
    asked = [
        (name, job.key, job.photos)
        for name, jobs in plan.asked(study, preset).items()
        for job in jobs
    ]
    table = pd.DataFrame(asked, columns=["notebook", "key", "photos"])
    table = table.drop_duplicates(["notebook", "key"]).assign(trainings=1)
    new = table[["trainings", "photos"]].where(~table["key"].duplicated(), 0).add_prefix("new_")
    counts = table[["notebook", "trainings", "photos"]].join(new).groupby("notebook").sum()
    counts.loc["all"] = counts.sum()
    return counts.reset_index()


def paper_bill() -> pd.DataFrame:
    """The bill of the paper's own Table 1 and training."""
    return bill(plan.paper_study(), "paper")


def factor(table: pd.DataFrame) -> float:
    """How many times as many photos would pass through networks if nothing were shared."""
    return float(table["photos"].iloc[-1] / table["new_photos"].iloc[-1])
