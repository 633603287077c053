"""The benchmark: what it measures is so, what it compares gives the same answers."""

import time

import numpy as np
import pandas as pd
import pytest

from miewid_core.bench import harness, report, scaling, sharing, startup, step, tasks


def prepare(way, size):
    """Ways of known cost: some hold `size` megabytes, some wait."""
    held = np.ones(size * 2**17) if way == "held before" else None

    def run():
        if way == "holds":
            np.ones(size * 2**17)
        elif way == "waits":
            time.sleep(0.2)
        return held

    return run


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "made.csv"
    ways = ("ours", "holds", "held before", "waits")
    table = harness.compare(prepare, ways, [{"size": 64}], rounds=2, path=path)
    return path, table


@pytest.mark.slow
def test_memory_and_time_are_those_of_the_call_alone(measured):
    table = measured[1].groupby("way")[["seconds", "megabytes"]].min()
    assert 60 < table.loc["holds", "megabytes"] < 80
    assert table.loc[["ours", "held before", "waits"], "megabytes"].max() < 5
    assert table.loc["waits", "seconds"] >= 0.2


@pytest.mark.slow
def test_ways_take_turns_and_what_was_measured_is_kept(measured):
    path, table = measured
    assert table["way"].tolist() == ["ours", "holds", "held before", "waits"] * 2
    assert table["round"].tolist() == [0] * 4 + [1] * 4
    again = harness.compare(prepare, ("ours", "holds"), [{"size": 64}], rounds=2, path=path)
    pd.testing.assert_frame_equal(again, table)
    more = harness.compare(prepare, ("ours",), [{"size": 64}], rounds=3, path=path)
    assert len(more) == len(table) + 1


def test_what_is_not_installed_is_left_out_and_said(monkeypatch):
    monkeypatch.setattr(harness, "NEEDS", {"faiss": "no_such_package"})
    assert harness.installed(["ours", "faiss"]) == ["ours"]
    assert harness.missing(["ours", "faiss"]).endswith("faiss.")
    assert harness.missing(["ours"]) == ""


def made(ours, textbook, n=20_000):
    """Seconds of each round; the textbook holds forty times the memory."""
    rows = [
        {"n": n, "way": way, "round": turn, "seconds": value, "megabytes": memory}
        for way, values, memory in (("ours", ours, 10.0), ("textbook", textbook, 400.0))
        for turn, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_ratios_are_within_rounds():
    """A machine that is ten times as slow in one round changes no ratio."""
    table = harness.summary(made([1, 10, 2], [4, 40, 6])).set_index("way")
    assert table.loc["textbook", ["ratio", "low", "high"]].tolist() == [4, 3, 4]
    assert table.loc["textbook", "memory"] == 40
    assert table.loc["ours", "seconds"] == 2


def test_targets_are_judged_by_their_case_and_sense():
    both = pd.concat([made([1, 1], [6, 8]), made([1, 1], [2, 2], n=5000)])
    table = report.targets({"evaluation": both}).set_index(["task", "what"])
    own = table.loc[("evaluation", "time, textbook / ours")]
    assert own[["found", "low", "high", "reached"]].tolist() == [7, 6, 8, "yes"]
    assert own["case"] == "n 20000"
    unknown = table.loc[("evaluation", "time, ours / product"), "reached"]
    assert unknown == "not measured here"
    assert table.loc[("epoch", "time, textbook / ours"), "reached"].endswith("no GPU")
    slow = report.targets({"evaluation": made([1], [3])}).iloc[0]
    assert slow["reached"] == "no"
    words = report.in_words(report.targets({"evaluation": made([1], [3])}))
    assert words.startswith("1 of 2 are reached.")
    assert (
        "evaluation (n 20000), time, textbook / ours: >= 5 asked for, 3.00 (3.00 to 3.00)" in words
    )


def test_what_is_asked_for_in_seconds_is_judged_by_the_median():
    ways = ["miewid_core"] * 3 + ["papermill 04_multi_vs_single"] * 3
    starting = pd.DataFrame({"way": ways, "seconds": [0.1, 0.2, 9, 14, 16, 15.5]})
    table = report.targets({"startup": starting}).set_index("task").loc["startup"]
    assert table["case"].tolist() == ["miewid_core", "papermill 04_multi_vs_single"]
    assert table["required"].tolist() == ["<= 0.3", "<= 15"]
    assert table["found"].tolist() == [0.2, 15.5]
    assert table["reached"].tolist() == ["yes", "no"]


def test_slopes_of_power_laws():
    rows = [
        {"axis": axis, "size": size, "seconds": 3 * size**power, "megabytes": 2 * size**0.5}
        for axis, power in (("annotations", 2), ("classes", 1), ("species", -1))
        for size in (10, 100, 1000)
    ]
    table = scaling.slopes(pd.DataFrame(rows))
    assert table["seconds"].tolist() == pytest.approx([2, 1, -1])
    assert table["megabytes"].tolist() == pytest.approx([0.5] * 3)


def test_other_answers_than_ours_are_an_error(monkeypatch):
    monkeypatch.setattr(step, "differences", lambda ways: {"ours": 0, "textbook": 1.0})
    with pytest.raises(ValueError, match="step: other answers than ours by textbook"):
        tasks.agreement("step")


def test_answers_that_were_compared_are_not_compared_again(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(step, "differences", lambda ways: asked.append(ways) or {"a": 0.1})
    monkeypatch.setattr(step, "ALLOWED", 0.2)
    first = tasks.agreement("step", tmp_path / "kept" / "step.csv")
    pd.testing.assert_frame_equal(tasks.agreement("step", tmp_path / "kept" / "step.csv"), first)
    assert first["difference"].tolist() == [0.1]
    assert len(asked) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["evaluation", "loss", "photos", "augment", "step", "embedding"])
def test_all_ways_give_our_answers(name):
    table = tasks.agreement(name)
    assert {"ours"} < set(table["way"])
    assert table.loc[table["way"] == "ours", "difference"].eq(0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["photos", "step", "epoch"])
def test_a_task_measures_each_way(name):
    table = tasks.measure(name, "quick", rounds=1)
    assert table["way"].is_unique
    assert (table["seconds"] > 0).all()


def test_imports_are_measured():
    table = startup.imports(1, ["json", "miewid_core.figures"]).set_index("way")
    assert (table["torch_and_timm"] > 0).all()
    assert table.loc["json", "seconds"] < table.loc["miewid_core.figures", "seconds"]


def test_sharing_counts_a_training_once(monkeypatch):
    class Job:
        def __init__(self, key, photos):
            self.key, self.photos = key, photos

    a, b = Job("a", 100), Job("b", 50)
    asked = {"04": [a, b], "05": [a], "11": [a, b, b]}
    monkeypatch.setattr(sharing.plan, "asked", lambda study, preset: asked)
    table = sharing.bill(None, "demo")
    assert table["photos"].tolist() == [150, 100, 150, 400]
    assert table["new_photos"].tolist() == [150, 0, 0, 150]
    assert sharing.factor(table) == pytest.approx(400 / 150)


@pytest.mark.parametrize("name", tasks.TASKS)
def test_what_is_committed_was_measured_in_full(name):
    path = tasks.FOLDER / f"{name}.csv"
    if name == "epoch":
        assert not path.exists() or len(pd.read_csv(path))
    else:
        assert {"way", "round", "seconds"} <= set(pd.read_csv(path))
