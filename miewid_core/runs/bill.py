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
from miewid_core.runs.run import Training

SECONDS, BATCH, CLASSES = 3.0, 32, 100  # of a measured rate


class Asked(NamedTuple):
    """A training that is asked for, without its rows, which of all would take gigabytes."""

    key: str
    annotations: int
    photos: int
    done: bool


def entry(training: Training) -> Asked:
    """What a bill says of a training; one without photos (no path) is never done."""
    # where no run is kept at all, no photo need be hashed to know that this one isn't
    begun = training.rows["path"].all() and any(training.runs_dir.glob("*/run.json"))
    done = bool(begun) and training.finished
    return Asked(training.key, len(training.rows), training.photos, done)


def summary(
    wanted: Mapping[str, Iterable[Training | Asked]], config: TrainConfig, rate: float = 0
) -> pd.DataFrame:
    """Trainings that each notebook asks for, and how many of them an earlier one asked for already.

    Columns notebook, trainings, new (not asked for before), done (of the new ones), photos (that
    an epoch of all the new ones shows) and to_do (photos still to show, all epochs), hours at
    `rate` photos/s (0: as measured for `config` by `rate_of`). "all" has the sums.
    """
    known: set[str] = set()
    rows = []
    for name, trainings in wanted.items():
        asked = [entry(own) if isinstance(own, Training) else own for own in trainings]
        new = {own.key: own for own in asked if own.key not in known}
        known |= new.keys()
        left = [own for own in new.values() if not own.done]
        counts = len({own.key for own in asked}), len(new), len(new) - len(left)
        photos = sum(own.annotations for own in new.values())
        rows.append((name, *counts, photos, sum(own.photos for own in left)))
    columns = ["notebook", "trainings", "new", "done", "photos", "to_do"]
    table = pd.DataFrame(rows, columns=columns)
    table.loc[len(table)] = ["all", *table[columns[1:]].sum()]
    if not rate and table["to_do"].any():
        rate = rate_of(config)
    return table.assign(hours=table["to_do"] / (3600 * rate) if rate else 0.0)


def rate_of(config: TrainConfig) -> float:
    """Photos per second in training, measured here on a few steps with noise for photos."""
    from miewid_core.training import Trainer  # not where all is trained or the rate is known

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
    """The bill in a sentence or two."""
    total = table.iloc[-1]
    left, count = int(total["new"] - total["done"]), int(total["new"])
    if not left:
        return "The network is already trained." if count == 1 else f"All {count} are trained."
    done = f"{count - left} of {count} networks are trained. " if left < count else ""
    networks = f"{left} network{'s'[: left != 1]}"
    return f"{done}{networks} to train: about {duration(total['hours'])} on this machine."


def duration(hours: float) -> str:
    """Hours in words, in the unit that suits them."""
    if hours * 60 < 2:
        return f"{hours * 3600:.0f} seconds"
    return f"{hours * 60:.0f} minutes" if hours < 2 else f"{hours:,.0f} hours"


def passes(trainings: Mapping[str, Training | Mapping[str, Training]]) -> pd.DataFrame:
    """How often each network is shown each photo of a species in training, for three species.

    `trainings`: to each name one training of all species, or one by species. Columns species (the
    one with most annotations, with the median number, with the fewest), annotations, and by name
    how often.
    """
    alone = [own for own in trainings.values() if isinstance(own, Mapping)]
    sizes = pd.Series({name: len(own.rows) for runs in alone for name, own in runs.items()})
    order = sizes.sort_values(ascending=False, kind="stable").index
    table = pd.DataFrame({"species": [*dict.fromkeys(order[[0, len(order) // 2, -1]])]})
    table["annotations"] = table["species"].map(sizes)
    for name, own in trainings.items():
        each = [own[one] if isinstance(own, Mapping) else own for one in table["species"]]
        table[name] = [one.photos / len(one.rows) for one in each]
    return table
