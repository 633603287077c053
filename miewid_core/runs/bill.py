"""The bill of trainings before they are done: how many, how many done, how long the rest takes."""

import dataclasses
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from miewid_core.config import TrainConfig
from miewid_core.machine import default_device
from miewid_core.paper.study import Study
from miewid_core.runs.jobs import Job
from miewid_core.training import Trainer

SECONDS, BATCH, CLASSES = 3.0, 32, 100  # of a measured rate


class Asked(NamedTuple):
    """A training that is asked for, without its rows, which of all would take gigabytes."""

    key: str
    annotations: int
    photos: int
    done: bool


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
    labels = torch.arange(batch)
    trainer.model.train()
    trainer.step(chips, labels)  # the first one also allocates
    start, shown = time.monotonic(), 0
    while (passed := time.monotonic() - start) < SECONDS:
        float(trainer.step(chips, labels))  # waits for a GPU
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
