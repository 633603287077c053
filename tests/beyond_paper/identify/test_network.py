"""Which network identifies, and which photos it hasn't learned from."""

import dataclasses
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from miewid_core import model
from miewid_core.beyond_paper.identify import network
from miewid_core.config import PRESETS


def photos(names, per=3):
    rows = [(f"{name}-{i}", "ant", name, f"{name}-{i}") for name in names for i in range(per)]
    return pd.DataFrame(rows, columns=["annotation_id", "species", "individual", "encounter"])


@dataclasses.dataclass
class Trained:
    """A training that is done, and the part of its run that is asked for."""

    weights: Path
    epochs: int = 10

    def run(self):
        return self


@dataclasses.dataclass
class Study:
    """The part of a study that is asked for; remembers what was trained."""

    annotations: pd.DataFrame
    train: pd.DataFrame
    test: pd.DataFrame
    config: object = PRESETS["demo"]
    runs_dir: str = "runs"
    chips_dir: str = "chips"
    seed: int = 0
    begins: int = 2
    ends: int = 1
    asked: list = dataclasses.field(default_factory=list)

    def training(self, rows, title, **changes):
        self.asked.append((rows, changes))
        return Trained(Path("run/weights.safetensors"), changes.get("epochs", 10))

    def run(self, trainings):
        return [training.run() for training in trainings]

    def embeddings(self, training, rows):
        return np.full(len(rows), training.epochs)

    def rank(self, embeddings, rows):
        """All right after ten epochs of training, and by an untrained network as `begins` says."""
        first = np.where(embeddings == 10, self.ends, self.begins)
        facts = {"first_match_rank": first, "relevant": 1, "candidates": 9}
        return rows.assign(**facts).astype({"first_match_rank": "Int64"})

    def multi(self):
        self.asked.append("multi")
        return Trained(Path("demo/weights.safetensors"))


@pytest.fixture
def study():
    names = [f"i{i:02}" for i in range(90)]
    every = photos(names)
    return Study(every, every[:240], every[180:])  # 60 train only, 20 both, 10 test only


def test_the_network_learns_all_that_trains_and_nothing_is_set_aside(study):
    chosen = network.choose(study)
    (rows, changes), (before, untrained) = study.asked
    assert before.equals(rows)
    assert untrained == {"epochs": 0}
    assert chosen.weights == Path("run/weights.safetensors")
    assert changes == {}
    assert rows.equals(study.train)
    assert chosen.tested.equals(study.test)
    assert chosen.learned == set(study.train["individual"])
    assert len(set(study.test["individual"]) - chosen.learned) == 10  # stand for new animals
    assert "240 photos of 80 of your individuals" in chosen.words
    assert "did not help" not in chosen.words


def test_a_training_that_ends_no_better_than_it_began_is_named(study):
    words = network.choose(dataclasses.replace(study, begins=1)).words
    assert words.endswith(" **The training did not help to identify ant.**")


def test_weights_of_unknown_origin_are_tested_on_every_animal(study, tmp_path):
    file = tmp_path / "mine.safetensors"
    file.touch()
    chosen = network.choose(study, str(file))
    assert chosen.weights == file
    assert study.asked == []
    assert chosen.tested["individual"].nunique() == 90
    assert chosen.learned == frozenset()
    assert network.UNKNOWN in chosen.words
    assert str(tmp_path) not in chosen.words
    with pytest.raises(ValueError, match=r"there is no file .*nowhere"):
        network.choose(study, "nowhere")


@pytest.fixture
def weights(study, tmp_path, monkeypatch):
    """A weights file with the rows of a run beside it; a photo's chip key is its annotation id."""

    class Store:
        def __init__(self, folder, size):
            assert (folder, size) == ("chips", 96)

        def keys(self, rows):
            return rows["annotation_id"]

    monkeypatch.setattr(network, "ChipStore", Store)
    loaded = (None, types.SimpleNamespace(size=96))
    monkeypatch.setattr(network, "load_model", lambda path: loaded)

    def written(rows):
        learned = rows[["annotation_id", "species", "individual"]]
        learned.assign(chip=rows["annotation_id"]).to_csv(tmp_path / "rows.csv", index=False)
        file = tmp_path / "weights.safetensors"
        file.touch()
        return str(file)

    return written


def test_a_run_tells_which_animals_it_learned(study, weights):
    chosen = network.choose(study, weights(study.annotations[:180]))
    assert chosen.learned == set(study.annotations["individual"][:180])
    assert chosen.tested.equals(study.test)
    assert "they learned 60 of 90 individuals" in chosen.words


def test_a_run_that_saw_none_of_these_animals_leaves_them_all_to_test(study, weights):
    others = photos(["x", "y"])
    chosen = network.choose(study, weights(others))
    assert chosen.learned == frozenset()
    assert chosen.tested["individual"].nunique() == 90
    assert "they learned 0 of 90 individuals" in chosen.words


def test_what_a_run_saw_of_the_test_isn_t_tested(study, weights):
    """Of another split: its photos, under other names, and others of the same encounters."""
    study.annotations.loc[0:1, "encounter"] = "met"
    seen = pd.concat([study.annotations[:1], study.annotations[240:]])
    chosen = network.choose(study, weights(seen.assign(individual="renamed")))
    assert chosen.learned == {"i00", *study.annotations["individual"][240:]}
    tested = set(chosen.tested["annotation_id"])
    assert not tested & set(seen["annotation_id"])
    assert "i00-1" not in tested
    assert "i00-2" in tested


def test_too_few_to_train_on_take_a_network_as_it_is(study, monkeypatch):
    monkeypatch.setattr(network, "open_study", lambda runs_dir: study)
    few = photos(["a", "b"])
    tiny = dataclasses.replace(study, annotations=few, train=few[:0], test=few[:0])
    chosen = network.choose(tiny)
    assert study.asked == ["multi"]
    assert "drawn animals only" in chosen.words
    assert len(chosen.tested) == 6
    ready = dataclasses.replace(tiny, config=PRESETS["compact"], asked=[])
    assert "as its pretraining left it" in network.choose(ready).words
    assert ready.asked[0][1] == {"epochs": 0}


def test_without_a_test_set_it_learns_no_photo_that_it_is_measured_on(study):
    once, twice = photos([f"j{i}" for i in range(12)]), photos(["k"])
    once = once.assign(encounter=once["individual"])  # one encounter each: none can be searched
    every = pd.concat([once, twice], ignore_index=True)
    alone = dataclasses.replace(study, annotations=every, train=every, test=every[:0])
    chosen = network.choose(alone)
    learned = study.asked[0][0]
    assert set(learned["individual"]) == set(once["individual"])
    searched = chosen.tested["individual"].duplicated(keep=False)
    assert set(chosen.tested.loc[searched, "individual"]) == {"k"}


def test_the_final_network_learns_all_known_photos_and_is_named_apart(study):
    measured = network.choose(study)
    known = study.annotations[3:]
    final = network.final_network(study, measured, known)
    rows, changes = study.asked[-1]
    assert rows.equals(known)
    assert changes == {}
    assert (measured.role, final.role) == ("measured network", "final network")
    assert final.learned == set(known["individual"])
    assert final.tested.empty
    assert "all 267 known photos of 89 individuals" in final.words
    few = network.final_network(study, measured, photos(["a", "b"]))
    assert few.role == measured.role
    assert "2 individuals are too few" in few.words


def test_given_weights_are_where_the_final_network_begins(study, tmp_path):
    """A run's file is that run; any other becomes one of no epoch, with the same weights."""
    file = tmp_path / "given.safetensors"
    made = model.MiewIDNet("test_efficientnet")
    model.save(made, model.Preprocess.of("test_efficientnet", 32), file)
    study = dataclasses.replace(study, runs_dir=tmp_path / "runs")
    measured = network.choose(study, str(file))
    final = network.final_network(study, measured, study.annotations, str(file))
    start = study.asked[-1][1].pop("start")
    assert study.asked[-1][1] == {"backbone": "test_efficientnet", "image_size": 32}
    assert start.weights.read_bytes() == file.read_bytes()
    assert start.rows.empty
    again = dataclasses.replace(measured, weights=start.weights)
    network.final_network(study, again, study.annotations, str(start.weights))
    assert study.asked[-1][1]["start"] == start
    assert "fine-tuned from `given.safetensors`, whose licence holds" in final.words


def test_scores_of_others_are_not_calibrated_for_the_final_network(study):
    measured = network.choose(study)
    with pytest.raises(ValueError, match="leave out scores or final"):
        network.final_network(study, measured, study.annotations, "", "scores.csv")
