"""What trainings the paper's notebooks ask for, and those that its Table 1 would ask for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from miewid_core import progress, splits
from miewid_core.config import PRESETS
from miewid_core.paper import few_shot
from miewid_core.paper.backbones import pair
from miewid_core.paper.printed import combined_table1
from miewid_core.paper.study import Study
from miewid_core.runs.bill import Asked, entry


def asked(
    study: Study,
    preset: str,
    targets: Sequence[str] = (),
    counts: Sequence[int] = (),
    draws: int = 3,
) -> dict[str, list[Asked]]:
    """The trainings that each notebook of the paper asks for: its number to a list of them.

    `targets`, `counts`, `draws`: what 07 and 09 vary, as their parameters and by their defaults.
    """
    multi = [entry(training) for training in study.multi_seeds()]
    single = [entry(training) for training in study.single().values()]
    matched = [entry(training) for training in study.single(matched=True).values()]
    left_out = [  # one by one: the rows of all take gigabytes at the paper's scale
        entry(study.left_out([species])[species])
        for species in progress(sorted(study.test["species"].unique()), "leave-one-out")
    ]
    few: dict[str, list[Asked]] = {method: [] for method in few_shot.METHODS}
    chosen = few_shot.targets(study, targets)
    for cell in progress(
        few_shot.cells(study, chosen, counts=counts, draws=draws), "few individuals"
    ):
        few[cell.method].append(entry(cell.training))
    both = pair(preset, study.config).values()
    backbones = [study.training(study.train, str(own["backbone"]), **own) for own in both]
    return {
        "00": multi[:1],
        "03": multi[:1],
        "04": [*multi, *single, *matched],
        "05": [*multi, *left_out],
        "06": [*multi, *left_out],
        "07": [*multi, *few["species_only"], *few["joint"]],
        "08": multi[:1],
        "09": [*multi, *few["species_only"], *few["fine_tuned"], *few["joint"]],
        "10": [*multi, *map(entry, backbones)],
        "11": [*multi, *matched, *left_out],
    }


def paper_study(preset: str = "paper", seed: int = 0) -> Study:
    """The study that Table 1's numbers would give, without photos: for the paper's whole bill.

    How a species' annotations spread over its individuals is drawn from a long tail (lognormal),
    each an encounter of its own. Species whose numbers can't be read are left out.
    """
    rng = np.random.default_rng(seed)
    counts = combined_table1().dropna()
    parts = [long_tail(*row, rng) for row in counts.itertuples(index=False)]
    annotations = pd.concat(parts, ignore_index=True)
    annotations["annotation_id"] = [f"{number:08}" for number in range(len(annotations))]
    annotations = annotations.assign(path="", encounter="", name=annotations["individual"])
    split = splits.split(annotations, seed)
    train, test = (splits.rows(annotations, split, part) for part in ("train", "test"))
    nowhere = [Path()] * 3  # no photo is read, nothing trained
    config = PRESETS[preset]
    return Study("paper", False, annotations, split, train, test, config, seed, *nowhere)


def long_tail(
    species: str, annotations: int, individuals: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Annotations of one species, at least one for each individual, as their `individual`."""
    weights = rng.lognormal(0, 1, individuals)
    extra = rng.multinomial(max(0, annotations - individuals), weights / weights.sum())
    names = np.repeat([f"{species}/{number}" for number in range(individuals)], 1 + extra)
    return pd.DataFrame({"individual": names}).assign(species=species)
