"""The work before it is done: what trainings the notebooks ask for, and how long they will take.

`make plan CATALOG=... PRESET=...` prints it for a catalog; CATALOG=paper for the paper's Table 1.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from miewid_core import few_shot, network, reported, splits, threshold
from miewid_core.config import PRESETS, TrainConfig
from miewid_core.cost import pair
from miewid_core.device import default_device
from miewid_core.jobs import Job
from miewid_core.parameters import parse
from miewid_core.study import Study, open_study
from miewid_core.training import Trainer

SECONDS, BATCH, CLASSES = 3.0, 32, 100  # of a measured rate
FALSE_MATCHES = 0.1  # the rate for which notebook 12 keeps individuals out, unless told otherwise
FEW = ("targets", "counts", "draws")  # parameters of 07 and 09


class Asked(NamedTuple):
    """A training that is asked for, without its rows, which of all would take gigabytes."""

    key: str
    annotations: int
    photos: int
    done: bool


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
    animals, _ = threshold.carve(study.train, study.test, FALSE_MATCHES, study.seed)
    enough = animals["individual"].nunique() >= network.LEAST
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
        "12": [entry(study.job(animals, "your animals"), study)] if enough else [],
    }


def entry(job: Job, study: Study) -> Asked:
    """What a plan says of a job of a study."""
    return Asked(job.key, len(job.rows), job.photos, _done(job, study))


def summary(
    study: Study, wanted: Mapping[str, Iterable[Job | Asked]], rate: float = 0
) -> pd.DataFrame:
    """Trainings that each notebook asks for, and how many of them an earlier one asked for already.

    Columns notebook, trainings, new (not asked for before), done (of the new ones), photos (that
    an epoch of all the new ones shows) and to_do (photos still to show, all epochs), hours at
    `rate` photos/s (0: as measured by `rate_of`). "all" has the sums.
    """
    known: set[str] = set()
    rows = []
    for name, jobs in wanted.items():
        trainings = [entry(job, study) if isinstance(job, Job) else job for job in jobs]
        new = {own.key: own for own in trainings if own.key not in known}
        known |= new.keys()
        left = [own for own in new.values() if not own.done]
        counts = len({own.key for own in trainings}), len(new), len(new) - len(left)
        photos = sum(own.annotations for own in new.values())
        rows.append((name, *counts, photos, sum(own.photos for own in left)))
    columns = ["notebook", "trainings", "new", "done", "photos", "to_do"]
    table = pd.DataFrame(rows, columns=columns)
    table.loc[len(table)] = ["all", *table[columns[1:]].sum()]
    if not rate and table["to_do"].any():
        rate = rate_of(study.config)
    return table.assign(hours=table["to_do"] / (3600 * rate) if rate else 0.0)


def _done(job: Job, study: Study) -> bool:
    """Whether a job's result is there; a plan without photos (no path) has none."""
    begun = job.rows["path"].all() and any(study.runs_dir.glob("*/run.json"))
    return bool(begun) and job.run(study.runs_dir, study.chips_dir).finished  # hashes its photos


def rate_of(config: TrainConfig) -> float:
    """Photos per second in training, measured here on a few steps with noise for photos."""
    trainer = Trainer(
        np.ones(CLASSES), dataclasses.replace(config, pretrained=False), 0, default_device()
    )
    size, batch = config.image_size, min(BATCH, config.batch_size)
    chips = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8)
    labels, bar = torch.arange(batch), tqdm(disable=True)
    trainer.model.train()
    trainer.step(chips, labels, bar)  # the first one also allocates
    start, shown = time.monotonic(), 0
    while (passed := time.monotonic() - start) < SECONDS:
        float(trainer.step(chips, labels, bar))  # waits for a GPU
        shown += batch
    return shown / passed


def in_words(table: pd.DataFrame) -> str:
    """The bill in a sentence."""
    whole = table.iloc[-1]
    asked_for = int(table["trainings"][:-1].sum())
    return (
        f"{asked_for} trainings are asked for, {whole['new']} of them distinct, {whole['done']} "
        f"done; {whole['photos']:,} photos per epoch of all, {whole['to_do']:,} still to show: "
        f"about {whole['hours']:.2g} hours on this machine."
    )


def paper_study(preset: str = "paper", seed: int = 0) -> Study:
    """The study that Table 1's numbers would give, without photos: for the paper's whole bill.

    Table 1 has annotations and individuals of each species; how the annotations spread over the
    individuals is drawn from a long tail (lognormal), each annotation an encounter of its own.
    Species whose numbers can't be read are left out.
    """
    rng = np.random.default_rng(seed)
    counts = reported.combined_table1().dropna()
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
