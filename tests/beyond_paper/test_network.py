"""Which network identifies, and which photos it hasn't learned from."""

import dataclasses

import pandas as pd
import pytest

from miewid_core.beyond_paper import identify
from miewid_core.config import PRESETS


def photos(names, per=3):
    rows = [(f"{name}-{i}", "ant", name, f"{name}-{i}") for name in names for i in range(per)]
    return pd.DataFrame(rows, columns=["annotation_id", "species", "individual", "encounter"])


@dataclasses.dataclass
class Trained:
    """A training that is done, and the part of its run that is asked for."""

    weights: identify.Path

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
    seed: int = 0
    asked: list = dataclasses.field(default_factory=list)

    def training(self, rows, title, **changes):
        self.asked.append((rows, changes))
        return Trained(identify.Path("run/weights.safetensors"))

    def run(self, trainings):
        return [training.run() for training in trainings]

    def multi(self):
        self.asked.append("multi")
        return Trained(identify.Path("demo/weights.safetensors"))


@pytest.fixture
def study():
    names = [f"i{i:02}" for i in range(90)]
    every = photos(names)
    return Study(every, every[:240], every[180:])  # 60 train only, 20 both, 10 test only


def test_the_network_learns_neither_validation_nor_test(study):
    chosen = identify.choose(study, "", 0.1)
    ((rows, changes),) = study.asked
    assert chosen.weights == identify.Path("run/weights.safetensors")
    assert changes == {}
    assert chosen.validation["individual"].nunique() == 30
    assert not set(rows["individual"]) & set(chosen.validation["individual"])
    assert not set(chosen.tested["individual"]) & set(chosen.validation["individual"])
    assert chosen.tested.equals(study.test)
    assert "150 photos of 50 individuals" in chosen.words


def test_without_a_threshold_it_learns_all_that_trains(study):
    chosen = identify.choose(study)
    assert study.asked[0][0].equals(study.train)
    assert chosen.validation.empty


def test_given_weights_are_taken_as_they_are(study, tmp_path):
    file = tmp_path / "mine.safetensors"
    file.touch()
    chosen = identify.choose(study, str(file), 0.1)
    assert chosen.weights == file
    assert study.asked == []
    assert chosen.validation["individual"].nunique() == 30
    assert str(tmp_path) not in chosen.words
    with pytest.raises(ValueError, match=r"there is no file .*nowhere"):
        identify.choose(study, "nowhere")


def test_too_few_to_train_on_take_a_network_as_it_is(study, monkeypatch):
    monkeypatch.setattr(identify, "open_study", lambda runs_dir: study)
    few = photos(["a", "b"])
    tiny = dataclasses.replace(study, annotations=few, train=few[:0], test=few[:0])
    chosen = identify.choose(tiny, "", 0.1)
    assert study.asked == ["multi"]
    assert "drawn animals only" in chosen.words
    assert len(chosen.tested) == 6
    ready = dataclasses.replace(tiny, config=PRESETS["compact"], asked=[])
    assert "as its pretraining left it" in identify.choose(ready).words
    assert ready.asked[0][1] == {"epochs": 0}


def test_without_a_test_set_it_learns_no_photo_that_it_is_measured_on(study):
    once, twice = photos([f"j{i}" for i in range(12)]), photos(["k"])
    once = once.assign(encounter=once["individual"])  # one encounter each: none can be searched
    every = pd.concat([once, twice], ignore_index=True)
    alone = dataclasses.replace(study, annotations=every, train=every, test=every[:0])
    chosen = identify.choose(alone, "", 0.1)
    learned = study.asked[0][0]
    assert set(learned["individual"]) == set(once["individual"])
    searched = chosen.tested["individual"].duplicated(keep=False)
    assert set(chosen.tested.loc[searched, "individual"]) == {"k"}
