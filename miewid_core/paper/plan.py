"""The work before it is done: what trainings the notebooks ask for, and how long they will take.

`make plan CATALOG=... PRESET=...` prints it for a catalog; CATALOG=paper for the paper's Table 1.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from miewid_core import splits
from miewid_core.config import PRESETS
from miewid_core.paper import few_shot
from miewid_core.paper.backbones import pair
from miewid_core.paper.printed import combined_table1
from miewid_core.paper.study import Study, open_study
from miewid_core.runs.bill import Asked, entry, in_words, summary
from miewid_core.runs.notebooks import parse

FEW = ("targets", "counts", "draws")  # parameters of 07 and 09


def asked(
    study: Study,
    preset: str,
    targets: Sequence[str] = (),
    counts: Sequence[int] = (),
    draws: int = 3,
) -> dict[str, list[Asked]]:
    """The trainings that each notebook asks for: its number to a list of them.

    `targets`, `counts`, `draws`: what 07 and 09 vary, as their parameters and by their defaults.
    """
    multi = entry(study.multi_species_job(), study)
    single = [entry(job, study) for job in study.single_species_jobs().values()]
    left_out = [
        entry(study.leave_one_out_jobs([species])[species], study)
        for species in tqdm(sorted(study.test["species"].unique()), "leave-one-out")
    ]
    few: dict[str, list[Asked]] = {method: [] for method in few_shot.METHODS}
    chosen = few_shot.targets(study, targets)
    for cell in tqdm(
        few_shot.each_cell(study, chosen, counts=counts, draws=draws), "few individuals"
    ):
        few[cell.method].append(entry(cell.job, study))
    both = pair(preset, study.config).values()
    backbones = [study.job(study.train, str(own["backbone"]), **own) for own in both]
    return {
        "03": [multi],
        "04": [multi, *single],
        "05": [multi, *left_out],
        "06": left_out,
        "07": [*few["species_only"], *few["joint"]],
        "08": [multi],
        "09": [*few["species_only"], *few["fine_tuned"], *few["joint"]],
        "10": [entry(job, study) for job in backbones],
        "11": [multi, *single, *left_out],
        "12": [multi],
    }


def paper_study(preset: str = "paper", seed: int = 0) -> Study:
    """The study that Table 1's numbers would give, without photos: for the paper's whole bill.

    Table 1 has annotations and individuals of each species; how the annotations spread over the
    individuals is drawn from a long tail (lognormal), each annotation an encounter of its own.
    Species whose numbers can't be read are left out.
    """
    rng = np.random.default_rng(seed)
    counts = combined_table1().dropna()
    parts = [_drawn(*row, rng) for row in counts.itertuples(index=False)]
    photos = pd.concat(parts, ignore_index=True)
    photos["annotation_id"] = [f"{number:08}" for number in range(len(photos))]
    photos = photos.assign(path="", encounter="", name=photos["individual"])
    split = splits.split(photos, seed)
    train, test = (splits.rows(photos, split, part) for part in ("train", "test"))
    nowhere = [Path()] * 3  # no photo is read, nothing trained
    return Study("paper", photos, split, train, test, PRESETS[preset], seed, *nowhere)


def _drawn(
    species: str, annotations: int, individuals: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Annotations of one species, at least one for each individual."""
    weights = rng.lognormal(0, 1, individuals)
    extra = rng.multinomial(max(0, annotations - individuals), weights / weights.sum())
    names = np.repeat([f"{species}/{number}" for number in range(individuals)], 1 + extra)
    return pd.DataFrame({"individual": names}).assign(species=species)


def main(arguments: list[str] | None = None) -> None:
    """Command line of this module: parameters as for `make figures`, and RATE (photos/s)."""
    parser = argparse.ArgumentParser(prog="make plan", description=__doc__)
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE", help="such as SEED=1")
    words = parser.parse_args(arguments).parameters
    try:
        given = parse(words)
        preset = given.get("preset", "paper" if given.get("catalog") == "paper" else "demo")
        rate = given.pop("rate", 0)
        few = {name: given.pop(name) for name in FEW if name in given}
        if given.get("catalog") == "paper":
            study = paper_study(preset, given.get("seed", 0))
        else:
            study = open_study(given.pop("catalog", "demo"), **{"preset": preset} | given)
        table = summary(study, asked(study, preset, **few), rate)
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    sys.stdout.write(f"{table.to_string(index=False, float_format='{:.2f}'.format)}\n")
    sys.stdout.write(f"{in_words(table)}\n")


if __name__ == "__main__":
    main()
