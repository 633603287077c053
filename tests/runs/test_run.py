"""A training is a value: found again when equal, another folder when anything differs."""

import json
import threading

import pandas as pd
import pytest

from miewid_core import training
from miewid_core.config import preset
from miewid_core.runs import run as run_file
from miewid_core.runs.run import spec

TINY = preset("demo", image_size=32, batch_size=8, epochs=1)


def train(photos, folder, config=TINY, seed=0):
    return run_file.train(photos, config, seed, folder / "runs", folder / "chips")


def test_trained_once_whatever_the_row_order(photos, tmp_path, monkeypatch):
    first = train(photos, tmp_path)
    monkeypatch.setattr(run_file, "fit", None)  # a second training would call it and fail
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
    calls, real = [], training.fit
    monkeypatch.setattr(
        run_file, "fit", lambda *given, **named: calls.append(1) or real(*given, **named)
    )
    threads = [threading.Thread(target=train, args=(photos, tmp_path)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(list((tmp_path / "runs").glob("*/run.json"))) == 1


def test_ranks_of_a_run_and_its_kept_embeddings(photos, tmp_path, monkeypatch):
    run = train(photos, tmp_path)
    ranks = run.ranks(photos, tmp_path / "chips")
    assert set(ranks["annotation_id"]) == set(photos["annotation_id"])
    assert (ranks["candidates"] == 11).all()
    monkeypatch.setattr(run_file, "embed", None)
    pd.testing.assert_frame_equal(ranks, run.ranks(photos, tmp_path / "chips"))


def test_an_untrained_network_is_a_run_too(photos, tmp_path):
    run = train(photos, tmp_path, preset("demo", image_size=32, epochs=0))
    assert run.history.empty
    assert len(run.embed(photos, tmp_path / "chips")) == len(photos)


def test_nothing_to_train_on_is_said(photos, tmp_path):
    with pytest.raises(ValueError, match="no annotation to train on"):
        train(photos.iloc[:0], tmp_path)
