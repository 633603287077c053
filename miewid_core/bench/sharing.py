"""What the notebooks save by sharing their trainings: from their plan, without training."""

from pathlib import Path

import pandas as pd

from miewid_core.bench.harness import kept_table
from miewid_core.paper import plan
from miewid_core.paper.study import Study


def bill(study: Study, preset: str) -> pd.DataFrame:
    """Per notebook, then "all": trainings it asks for, and photos shown in all their epochs.

    Columns notebook, trainings, photos, new_trainings, new_photos (of those that no earlier
    notebook asked for). A notebook that trained for itself would show `photos`.
    """
    known: set[str] = set()
    rows = []
    for name, jobs in plan.asked(study, preset).items():
        own = {job.key: job for job in jobs}
        new = {key: job for key, job in own.items() if key not in known}
        known |= own.keys()
        counts = [(len(some), sum(job.photos for job in some.values())) for some in (own, new)]
        rows.append((name, *counts[0], *counts[1]))
    columns = ["notebook", "trainings", "photos", "new_trainings", "new_photos"]
    table = pd.DataFrame(rows, columns=columns)
    table.loc[len(table)] = ["all", *table[columns[1:]].sum()]
    return table


def paper_bill(path: Path | None = None) -> pd.DataFrame:
    """The bill of the paper's own Table 1 and training; kept in the CSV `path`."""
    return kept_table(path, lambda: bill(plan.paper_study(), "paper"))


def factor(table: pd.DataFrame) -> float:
    """How many times as many photos would pass through networks if nothing were shared."""
    whole = table.iloc[-1]
    return float(whole["photos"] / whole["new_photos"])
