"""A training is a value: found again when equal, another folder when anything differs."""

import dataclasses
import json
import threading
from pathlib import Path

import pandas as pd
import pytest

from miewid_core import training as training_file
from miewid_core.config import TrainConfig, fine_tuning, preset
from miewid_core.runs import multi_gpu
from miewid_core.runs import run as run_file
from miewid_core.runs.run import Training

TINY = preset("demo", image_size=32, batch_size=8, epochs=1)


def train(photos, folder, config=TINY, seed=0):
    return training(photos, folder, config, seed).run()


def training(photos, folder, config=TINY, seed=0):
    return Training("t", photos, config, seed, folder / "runs", folder / "chips")


def spec(keys, individuals, config, seed):
    rows = pd.DataFrame({"chip": keys, "individual": individuals})
    return training(rows, Path(), config, seed).spec


def test_trained_once_whatever_the_row_order(photos, tmp_path, monkeypatch):
    first = train(photos, tmp_path)
    monkeypatch.setattr(multi_gpu, "fit", None)  # a second training would call it and fail
    again = train(photos.sample(frac=1, random_state=1), tmp_path)
    assert first == again
    assert len(first.history) == 1
    assert first.record["spec"]["rows"] == len(photos)
    assert not (first.folder / "checkpoint.safetensors").exists()
    rows = pd.read_csv(first.folder / "rows.csv")
    assert set(rows["annotation_id"]) == set(photos["annotation_id"])


def test_anything_that_matters_makes_another_run(photos, tmp_path):
    relabelled = photos.assign(individual=photos["individual"].replace("ant/a", "ant/b"))
    specs = [
        spec(["k1", "k2"], ["a", "b"], TINY, 0),
        spec(["k1", "k2"], ["a", "a"], TINY, 0),
        spec(["k1", "k3"], ["a", "b"], TINY, 0),
        spec(["k1"], ["a"], TINY, 0),
        spec(["k1", "k2"], ["a", "b"], TINY, 1),
        spec(["k1", "k2"], ["a", "b"], preset("demo", image_size=32, epochs=2), 0),
    ]
    assert len({json.dumps(spec) for spec in specs}) == len(specs)
    assert train(photos, tmp_path) != train(relabelled, tmp_path)


def test_a_weights_file_counts_by_content_not_by_place(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"same")
    specs = [
        spec(["k"], ["a"], preset("demo", pretrained=str(tmp_path / name)), 0)
        for name in ("one", "two")
    ]
    assert specs[0] == specs[1]


def test_half_written_result_is_not_taken_for_a_whole_one(photos, tmp_path):
    run = train(photos, tmp_path)
    weights = (run.folder / "weights.safetensors").read_bytes()
    (run.folder / "run.json").unlink()
    (run.folder / "weights.safetensors").write_bytes(weights[:100])
    again = train(photos, tmp_path)
    assert (again.folder / "weights.safetensors").read_bytes() == weights


def test_two_at_once_train_once(photos, tmp_path, monkeypatch):
    calls, real = [], training_file.fit
    monkeypatch.setattr(
        multi_gpu, "fit", lambda *given, **named: calls.append(1) or real(*given, **named)
    )
    threads = [threading.Thread(target=train, args=(photos, tmp_path)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(list((tmp_path / "runs").glob("*/run.json"))) == 1


def test_an_untrained_network_is_a_run_too(photos, tmp_path):
    run = train(photos, tmp_path, preset("demo", image_size=32, epochs=0))
    assert run.history.empty
    assert run.load()[0].n_features


def test_nothing_to_train_on_is_said(photos, tmp_path):
    with pytest.raises(ValueError, match="no annotation to train on"):
        train(photos.iloc[:0], tmp_path)


@dataclasses.dataclass(frozen=True)
class Newer(TrainConfig):
    """A configuration of a later version, with a field that this one lacks."""

    extra: str = "none"


def test_a_new_field_at_its_default_keeps_the_folders_of_earlier_trainings():
    rows = ["k1", "k2"], ["a", "b"]
    newer = Newer(**dataclasses.asdict(TINY))
    assert spec(*rows, newer, 0) == spec(*rows, TINY, 0)
    assert spec(*rows, dataclasses.replace(newer, extra="some"), 0) != spec(*rows, TINY, 0)


def test_folders_of_trainings_stay_where_they_are(monkeypatch):
    rows = pd.DataFrame({"chip": ["k1", "k2"], "individual": ["a", "b"]})
    configs = preset("demo"), preset("paper"), fine_tuning(preset("compact"))
    names = [training(rows, Path("here"), config).folder.name for config in configs]
    assert names == ["76ef54016617f79a", "2e4003df248b1f56", "1620d6f03c20907a"]
    monkeypatch.setattr(run_file, "RECIPE", 2)  # of version 0.1, which had fewer fields
    assert training(rows, Path("here"), preset("paper")).folder.name == "8e710c86297a9648"
