"""The benchmark: what it measures is so, what it compares gives the same answers."""

import dataclasses
import re
import time
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pandas as pd
import pytest

from miewid_core.bench import growth, harness, measuring, peers, photos, report, step
from miewid_core.bench.textbook import Photos


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


WAYS = ("ours", "holds", "held before", "waits")
MADE = measuring.Task("made", WAYS, {"quick": [{"size": 64}]}, prepare)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "made.csv"
    return path, measuring.compare(MADE, "quick", 2, path)


@pytest.mark.slow
def test_memory_and_time_are_those_of_the_call_alone(measured):
    table = measured[1].groupby("way")[["seconds", "megabytes"]].min()
    assert 60 < table.loc["holds", "megabytes"] < 80
    assert table.loc[["ours", "held before", "waits"], "megabytes"].max() < 5
    assert table.loc["waits", "seconds"] >= 0.2
    waited = measured[1].query("way == 'waits'")
    assert (waited["cpu_seconds"] < waited["seconds"] / 2).all()  # a sleep is no work


@pytest.mark.slow
def test_ways_take_turns_and_what_was_measured_is_kept(measured):
    path, table = measured
    assert table["way"].tolist() == ["ours", "holds", "held before", "waits"] * 2
    assert table["round"].tolist() == [0] * 4 + [1] * 4
    again = measuring.compare(dataclasses.replace(MADE, ways=WAYS[:2]), "quick", 2, path)
    pd.testing.assert_frame_equal(again, table)
    more = measuring.compare(dataclasses.replace(MADE, ways=WAYS[:1]), "quick", 3, path)
    assert len(more) == len(table) + 1
    assert more["machine"].eq(measuring.here_and_now()["machine"]).all()


def test_what_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr(measuring, "PACKAGES", ("no-such-package",))
    assert "no-such-package" in measuring.missing()
    assert measuring.installed(["ours", "no-such-package"]) == ["ours"]


@pytest.mark.slow
def test_in_this_process_the_ways_take_turns():
    table = measuring.in_turn(MADE, 2)
    assert table["way"].tolist() == [*WAYS] * 2
    assert table["round"].tolist() == [0] * 4 + [1] * 4
    assert measuring.summary(table)["way"].tolist() == [*WAYS]


def made(ours, textbook, n=20_000):
    """Seconds of each round; the textbook holds forty times the memory."""
    rows = [
        {"n": n, "way": way, "round": turn, "cpu_seconds": value, "megabytes": memory}
        for way, values, memory in (("ours", ours, 10.0), ("textbook", textbook, 400.0))
        for turn, value in enumerate(values)
    ]
    return pd.DataFrame(rows).assign(seconds=lambda rows: 2 * rows["cpu_seconds"])


def test_ratios_are_within_rounds():
    """A machine that is ten times as slow in one round changes no ratio."""
    table = measuring.summary(made([1, 10, 2], [4, 40, 6])).set_index("way")
    assert table.loc["textbook", ["ratio", "low", "high"]].tolist() == [4, 3, 4]
    assert table.loc["textbook", "memory"] == 40
    assert table.loc["ours", ["seconds", "cpu_seconds"]].tolist() == [4, 2]


def test_a_memory_ratio_is_that_of_the_numbers_shown():
    small = made([1], [1]).assign(megabytes=[0.25, 0.5])
    assert measuring.summary(small).set_index("way").loc["textbook", "memory"] == 2
    none = measuring.summary(small.assign(megabytes=[0.0, 0.5])).set_index("way")
    assert np.isnan(none.loc["textbook", "memory"])


def test_slopes_of_power_laws():
    rows = [
        {"axis": axis, "size": size, "way": way, "cpu_seconds": cost * size**power}
        for axis, power in (("annotations", 2), ("classes", 1), ("species", -1))
        for size in (10, 100, 1000)
        for way, cost in (("ours", 3), ("product", size))
    ]
    full = pd.DataFrame(rows).assign(megabytes=lambda rows: rows["size"] ** 0.5)
    table = report.slopes(full)
    assert table["cpu_seconds"].to_dict() == pytest.approx(
        {"annotations": 2, "classes": 1, "species": -1}
    )
    assert table["megabytes"].tolist() == pytest.approx([0.5] * 3)
    assert "1.0 and 0.5 of the loss by individuals, -1.0" in report.other_slopes(full)
    assert report.slopes(full[full["size"] == 10]).empty


def test_the_papers_size_is_told_beside_the_bare_product():
    rows = [("annotations", growth.LARGEST, way, n) for way, n in (("ours", 3), ("product", 4))]
    rows += [("annotations", 5000, "ours", 1), ("split", growth.WHOLE, "ours", 7)]
    rows += [("split", growth.MILLION, "ours", 20)]
    full = pd.DataFrame(rows, columns=["axis", "size", "way", "cpu_seconds"])
    full = full.assign(round=0, seconds=9.0, megabytes=1.0)
    table = report.papers_size(full)
    assert table["what"].tolist() == ["ranking one species", "split", "split"]
    assert table["processor seconds"].tolist() == [3, 7, 20]
    assert table["wall seconds"].tolist() == [9, 9, 9]
    rows = [("ours", 2.0), ("products", 1.6), ("textbook", 9.0)]
    loss = pd.DataFrame(rows, columns=["way", "cpu_seconds"])
    loss = pd.concat([loss.assign(classes=count) for count in (20_000, 37_138)])
    loss.loc[loss["classes"] == 20_000, "cpu_seconds"] *= [1, 9, 1]
    measured = {"growth": full, "loss": loss.assign(round=0, megabytes=1.0)}
    told = report.beside_products(measured)
    assert told.startswith("Ranking 67,106 annotations takes 0.75 times as long as the bare")
    assert told.endswith("37,138 individuals 1.25 times as long as its bare products.")


def answering(difference, allowed=0.2):
    """The training step's task with a known difference, of a share of our largest value."""

    def answer(way):
        if way in step.TRIED:
            return None
        return [[8.0, np.nan], [0.5, 5 * (1 + difference * (way == "textbook"))]]

    return dataclasses.replace(step.STEP, answer=answer, allowed=allowed)


def test_other_answers_than_ours_are_an_error():
    with pytest.raises(ValueError, match="step: other answers than ours by textbook"):
        measuring.agreement(answering(1.0))
    assert measuring.agreement(answering(0.1))["difference"].iloc[0] == pytest.approx(0.1)


def test_ways_without_an_answer_are_not_compared():
    assert measuring.agreement(answering(0.1))["way"].tolist() == ["textbook"]


def test_what_was_compared_is_noted_once(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "compare", lambda *given: made([1], [2]))
    for difference in (0.1, 0.05):
        monkeypatch.setitem(harness.TASKS, "step", answering(difference))
        harness.run(["step"], folder=tmp_path)
    table = report.agreement(tmp_path)
    assert table["difference"].tolist() == pytest.approx([0.05])
    assert {"machine", "date"} <= set(table)


def test_tasks_reach_a_fresh_process_as_they_are():
    for task in harness.TASKS.values():
        assert ForkingPickler.dumps(task)
        assert "ours" in task.ways
        for case in [*task.sizes["quick"], *task.sizes["full"]]:
            assert set(case.get("ways", task.ways)) <= set(task.ways)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # wildlife-tools calls what pandas 3 lacks
@pytest.mark.parametrize("name", ["evaluation", "loss", "step", "peers", "gpu"])
def test_all_compared_ways_give_our_answers(name):
    assert "textbook" in measuring.agreement(harness.TASKS[name])["way"].tolist()


@pytest.mark.slow
def test_photos_at_reduced_size_differ_little_from_the_textbooks():
    """Single pixels by up to 6 % of the brightest, on average by less than 2 of 255."""
    rows = photos.drawn(2)
    ours = np.stack([np.asarray(chip) for chip, _ in photos.chips_of(rows, 256)]).astype(float)
    plain = Photos(rows, [0, 0], 256)
    theirs = np.stack([plain[row][0].permute(1, 2, 0).numpy() for row in range(2)])
    assert 0 < np.abs(theirs - ours).mean() < 2
    assert np.abs(theirs - ours).max() < 0.06 * 255


@pytest.mark.slow
@pytest.mark.parametrize("name", ["growth", "gpu"])
def test_a_task_measures_each_way(name, tmp_path):
    table = measuring.compare(harness.TASKS[name], "quick", 1, tmp_path / "measured.csv")
    cases = [column for column in table if column not in measuring.MEASURED]
    assert not table.duplicated([*cases, "way"]).any()
    assert set(table["way"]) == set(harness.TASKS[name].ways)
    assert (table["cpu_seconds"] > 0).all()


@pytest.mark.slow
def test_what_a_notebook_measures_is_each_way_that_is_installed():
    table = harness.now(1)
    assert set(table["task"]) == {"evaluation", "loss", "step", "embedding", "epoch"}
    assert {"ours", "textbook", "ours, first pass"} <= set(table["way"])
    assert (table["ratio"] > 0).all()


def test_a_gpu_that_is_not_there_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring.torch.cuda, "is_available", lambda: False)
    assert "not measured here: no GPU" in harness.run(["gpu"], folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_task_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no task los; there are evaluation, loss"):
        harness.run(["los"], folder=tmp_path)


def test_lines_of_user_code_leave_out_what_explains_it():
    def written():
        """Two lines of

        explanation."""
        # and one more

        return 1

    assert report.lines_of(written) == 2
    told = report.lines()
    assert re.search(r"ranking: ours \d+, \d+, \d+; wildlife-tools \d+, \d+, \d+; py", told)
    assert "textbook" not in told


def test_sharing_counts_a_training_once(monkeypatch):
    class Job:
        def __init__(self, key, photos):
            self.key, self.photos = key, photos

    a, b = Job("a", 100), Job("b", 50)
    asked = {"04": [a, b], "05": [a], "11": [a, b, b]}
    monkeypatch.setattr(report.plan, "asked", lambda study, preset: asked)
    assert report.sharing(None, "demo") == pytest.approx(400 / 150)


@pytest.mark.parametrize("name", report.read())
def test_what_is_committed_was_measured_in_full(name):
    table = report.read()[name]
    assert {"way", "round", "seconds"} <= set(table)
    task = harness.TASKS[name]
    cases = {
        tuple((key, case[key]) for key in sorted(case.keys() - {"ways"}))
        for case in task.sizes["full"]
    }
    names = sorted(set(table) - set(measuring.MEASURED))
    assert {
        tuple(zip(names, row, strict=True)) for row in table[names].to_numpy().tolist()
    } <= cases
    assert set(table["way"]) <= set(task.ways)


def test_where_and_when_is_said_of_each_measurement():
    own = made([1], [2]).assign(machine="a", date="2026-01-02", load=[3, 4])
    assert report.sources({"made": own}).loc[0].tolist() == ["made", "a", "2026-01-02", 1, 3.5]


def test_all_that_was_measured_beside_a_package_is_shown():
    shown = {
        (task, *sorted(case.items()))
        for task, _, case in report.SPEEDS.values()
        if task in ("evaluation", "loss")
    }
    for task in ("evaluation", "loss"):
        task_ways = harness.TASKS[task].ways
        for case in harness.TASKS[task].sizes["full"]:
            if not {*case.get("ways", task_ways)} & {*report.PACKAGES}:
                continue
            assert any(of == task and {*items} <= {*case.items()} for of, *items in shown)


def test_what_is_measured_now_is_told():
    """Beside the packages alone, and our first pass by its time over the textbook's."""
    rows = [
        ("evaluation", "scikit-learn", 0.8, 0.7, 0.9),
        ("evaluation", "product", 0.2, 0.1, 0.3),
        ("evaluation", "textbook", 0.9, 0.8, 1.1),
        ("embedding", "ours, first pass", 3.0, 3.0, 3.0),
        ("embedding", "textbook", 1.5, 1.4, 1.6),
        ("epoch", "ours, first pass", 2.0, 2.0, 2.0),
        ("epoch", "textbook", 0.8, 0.7, 1.6),
    ]
    now = pd.DataFrame(rows, columns=["task", "way", "ratio", "low", "high"])
    assert report.in_small(now) == (
        "Ours is faster in every round in 1 of 4 comparisons and slower in every round in 1; in 2 "
        "the rounds are mixed. Slower by the median: ranking beside scikit-learn, 0.80 (0.70 to "
        "0.90); ranking beside textbook, 0.90 (0.80 to 1.10); training epoch beside textbook, 0.80 "
        "(0.70 to 1.60). When ours sees these small photos for the first time, it takes 2.0 times "
        "as long as the textbook to embed, and 2.5 times for a training epoch."
    )


def test_the_answer_farthest_from_ours_is_that_nearest_to_what_is_allowed():
    rows = [("step", "textbook", 5e-5, 1e-4), ("evaluation", "faiss", 9e-7, 1e-6)]
    table = pd.DataFrame(rows, columns=["task", "way", "difference", "allowed"])
    told = report.farthest(table)
    assert "is 90 % of what is allowed (ranking by faiss: 9.0e-07 of 1e-06" in told


def test_what_was_not_measured_is_said():
    assert report.speeds({}).empty
    assert report.answer({}).endswith("not measured in full.")


def test_speeds_are_ratios_of_processor_time_within_a_round():
    rows = [
        ("embedding", kind, way, turn, seconds * (turn + 1), megabytes)
        for kind in ("12 megapixels", peers.CUT)
        for way, seconds, megabytes in (
            ("ours", 1, 10),
            ("ours, first pass", 4, 20),
            ("wildlife-tools", 12, 40),
        )
        for turn in range(2)
    ]
    columns = ["stage", "kind", "way", "round", "cpu_seconds", "megabytes"]
    photos = pd.DataFrame(rows, columns=columns).assign(seconds=0.5)
    full = {"peers": photos, "step": made([1, 1], [2, 4])}
    table = report.speeds(full)
    assert table["way"].tolist() == ["wildlife-tools"] * 3 + ["textbook"]
    found = table.set_index("what")
    assert found["ratio"].to_dict() == {
        "embedding, photos cut before": 12,
        "embedding, large photos": 3,
        "embedding, large photos again": 12,
        "training step": 3,
    }
    assert found.loc["embedding, large photos", "memory"] == 2
    shown = report.readable(table)
    assert shown["textbook"].tolist() == ["", "", "", "3.0 (2.0 to 4.0)"]
    assert shown["wildlife-tools"][0] == "12.0"  # rounds that agree have no range
    drawn = report.figure(table)
    assert drawn.get_suptitle() == "Ours is faster in every round in 4 of 4 comparisons"
    assert report.in_words(table) == (
        "Ours is faster in every round in 4 of 4 comparisons and slower in every round in 0; in 0 "
        "the rounds are mixed. Slower by the median: none."
    )
    (axes,) = drawn.axes
    assert [list(line.get_xdata()) for line in axes.lines[1:]] == [[12, 3, 12], [], [3], [], []]


def test_the_committed_measurements_are_told():
    full = report.read()
    words = report.answer(full)
    assert len(words.split()) <= 66
    assert report.conditions(full).endswith(". No GPU was measured.")
    own = report.absolute(full).set_index("what")
    assert own["photos per processor second"].notna().sum() == 6
    for what, rows in report.speeds(full).groupby("what"):
        ratios = 1 / rows["memory"]
        assert own.loc[what].iloc[3:].tolist() == [ratios.min(), ratios.max()]
    assert {*report.SPEEDS} == {*own.index}
    assert all(f"{name} " in report.tried(full["step"]) for name in step.TRIED)
    assert len(report.growth_figure(full["growth"]).axes[0].lines) == 1 + len(growth.STAGES)
    told = report.agreement()
    assert (told["difference"] <= told["allowed"]).all()
