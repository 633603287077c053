"""A training done again from what its run.json says: whether the same weights come out."""

from pathlib import Path

import pandas as pd
import torch

from miewid_core.chips import ChipStore
from miewid_core.config import FineTuneConfig, TrainConfig
from miewid_core.files import file_digest
from miewid_core.machine import threads
from miewid_core.model import read_tensors
from miewid_core.runs.run import RESULTS, Run, Training, folder_name, versions


def repeat(
    run: Run,
    runs_dir: Path,
    chips_dir: Path,
    annotations: pd.DataFrame | None = None,
    pretrained: str = "",
) -> Run:
    """Train again what `run` was, with as many threads; its repetition, in a folder of `runs_dir`.

    `annotations`: a catalog's, to make the chips that `chips_dir` lacks. `pretrained`: the weights
    file that the training began with, where it was a local one. A fine-tuned run needs the one that
    it started from beside it. Raises ValueError naming what is missing or isn't what it was.
    """
    for name in RESULTS:  # now, not when all is trained
        run.checked(name)
    told, rows = run.record, run.rows
    if Path(runs_dir).resolve() == run.folder.resolve().parent:
        raise ValueError(f"{runs_dir} is where the run itself lies: choose another folder")
    config = _config(told["spec"]["config"], pretrained)
    store = ChipStore(chips_dir, config.image_size)
    if annotations is not None:
        store.build(annotations[annotations["annotation_id"].isin(rows["annotation_id"])])
    _refuse_missing(rows, store)
    start = _start(run, told["spec"].get("start"))
    with threads(int(told["threads"])):
        again = Training(
            told["title"], rows, config, told["spec"]["seed"], Path(runs_dir), chips_dir, start
        )
        return again.run()


def _config(fields: dict[str, object], pretrained: str) -> TrainConfig:
    """The configuration of a spec, with the weights file in the place of its digest."""
    wanted = fields["pretrained"]
    if isinstance(wanted, str):
        if not Path(pretrained).is_file():
            raise ValueError(f"pretrained: give the weights file that it began with, {wanted}")
        found = f"sha256:{file_digest(Path(pretrained))}"
        if found != wanted:
            raise ValueError(f"pretrained: {pretrained} is {found}; it began with {wanted}")
        fields = fields | {"pretrained": pretrained}
    kind = FineTuneConfig if "frozen_epochs" in fields else TrainConfig
    try:
        return kind(**fields)
    except TypeError as error:
        raise ValueError(f"its configuration is none of this version's: {error}") from error


def _refuse_missing(rows: pd.DataFrame, store: ChipStore) -> None:
    missing = rows[[not store.has(key) for key in rows["chip"]]]
    if not missing.empty:
        raise ValueError(
            f"{len(missing)} of {len(rows)} chips of {store.size} px are not in {store.folder}: "
            "give the chips' folder (--chips), or the catalog to make them from (--catalog), which "
            f"has the annotations {', '.join(missing['annotation_id'].head(3))}"
        )


def _start(run: Run, name: str | None) -> Run | None:
    """The run that a fine-tuned one started from."""
    if name is None:
        return None
    start = Run(run.folder.parent / Path(name).name)
    if not start.finished:
        raise ValueError(
            f"{run.folder} was fine-tuned from {name}: put that run's folder beside it"
        )
    return start


def differences(first: Run, second: Run) -> pd.Series:
    """Of each tensor whose bits differ the largest absolute difference; infinite for other shapes.

    Indexed by the tensors' names, largest first; empty where all weights are equal bit by bit.
    """
    ours, theirs = (read_tensors(run.weights) for run in (first, second))
    found = {}
    for name in sorted(ours.keys() | theirs.keys()):
        pair = [tensors[name] for tensors in (ours, theirs) if name in tensors]
        if len(pair) < 2 or pair[0].shape != pair[1].shape:
            found[name] = float("inf")
        elif len({(own.dtype, own.numpy().tobytes()) for own in pair}) > 1:
            apart = (pair[0].double() - pair[1].double()).abs()
            found[name] = float(apart.nan_to_num(float("inf")).max())
    return pd.Series(found, dtype=float).sort_values(ascending=False, kind="stable")


def causes(first: Run, second: Run) -> list[str]:
    """What differs between the records of a run and its repetition, in words."""
    one, other = first.record, second.record
    found = [
        f"{name} {one.get(name)}, then {other[name]}"
        for name in versions()
        if one.get(name) != other[name]
    ]
    found += [
        f"{name} of the spec"
        for name in sorted(one["spec"].keys() | other["spec"].keys())
        if one["spec"].get(name) != other["spec"].get(name)
    ]
    if folder_name(one["spec"]) != first.folder.name:
        found.append(
            "its folder isn't named by its spec: run.json or the folder's name was changed"
        )
    if torch.cuda.is_available():
        found.append("on a GPU sums run in varying order")
    return found


def in_words(found: pd.Series, why: list[str]) -> str:
    """What `differences` and `causes` found."""
    told = "equal: every tensor of the weights, bit by bit"
    if not found.empty:
        largest = f"by up to {found.iloc[0]:.3g} ({found.index[0]})"
        told = f"NOT equal: {len(found)} tensors of the weights differ, {largest}"
        why = why or ["nothing in the two records"]
    return f"{told}\nwhat differs else: {'; '.join(why)}" if why else told
