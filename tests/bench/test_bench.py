"""The benchmark: what it measures is so, what it compares gives the same answers."""

import dataclasses
import time
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pandas as pd
import pytest

from miewid_core.bench import growth, harness, measuring, peers, photos, report, sharing, step


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
    table = measuring.summary(made([1, 10, 2], [4, 40, 6])).set_index("way")
    assert table.loc["textbook", ["ratio", "low", "high"]].tolist() == [4, 3, 4]
    assert table.loc["textbook", "memory"] == 40
    assert table.loc["ours", "seconds"] == 2


def test_a_memory_ratio_is_that_of_the_numbers_shown():
    small = made([1], [1]).assign(megabytes=[0.25, 0.5])
    assert measuring.summary(small).set_index("way").loc["textbook", "memory"] == 2
    none = measuring.summary(small.assign(megabytes=[0.0, 0.5])).set_index("way")
    assert np.isnan(none.loc["textbook", "memory"])


def test_targets_are_judged_by_their_case_and_sense():
    both = pd.concat([made([1, 1], [6, 8]), made([1, 1], [2, 2], n=5000)])
    table = report.targets({"evaluation": both}).set_index(["task", "what"])
    own = table.loc[("evaluation", "time, textbook / ours")]
    assert own[["found", "low", "high", "reached"]].tolist() == [7, 6, 8, "yes"]
    assert own["case"] == "n 20000"
    unknown = table.loc[("evaluation", "time, ours / product")]
    assert unknown["reached"].eq("not measured here").all()
    assert unknown["case"].tolist() == ["n 20000", "n 67106"]
    assert table.loc[("epoch", "time, textbook / ours"), "reached"].endswith("no GPU")
    slow = report.targets({"evaluation": made([1], [3])}).iloc[0]
    assert slow["reached"] == "no"
    words = report.in_words(report.targets({"evaluation": made([1], [3])}))
    assert words.startswith("1 of 2 targets are reached.")
    assert "growth" not in words
    assert (
        "evaluation, time, textbook / ours (n 20000): >= 5 asked for, 3.00 (3.00 to 3.00)" in words
    )
    told = report.not_measured(report.targets({"evaluation": made([1], [3])}))
    assert told.startswith("Not measured: ")
    assert "loss, time, ours / products (), " in told
    assert "the largest species of Table 1, " in told
    assert told.count("a catalog of the paper's size") == 1


def test_what_is_asked_for_in_seconds_is_judged_by_the_median():
    rows = {"way": "ours", "axis": "split", "size": 1_000_000, "seconds": [4.0, 31.0, 90.0]}
    table = report.targets({"growth": pd.DataFrame(rows)}).set_index("task").loc["growth"]
    assert table["reached"].tolist() == ["not measured here", "no"]
    assert table.iloc[1][["what", "found", "low", "high"]].tolist() == ["seconds, ours", 31, 4, 90]


def test_slopes_of_power_laws():
    rows = [
        {"axis": axis, "size": size, "seconds": 3 * size**power, "megabytes": 2 * size**0.5}
        for axis, power in (("annotations", 2), ("classes", 1), ("species", -1))
        for size in (10, 100, 1000)
    ]
    table = growth.slopes(pd.DataFrame(rows))
    assert table["seconds"].tolist() == pytest.approx([2, 1, -1])
    assert table["megabytes"].tolist() == pytest.approx([0.5] * 3)


def answering(difference, allowed=0.2):
    """The training step's task with a known difference, of a share of our largest value."""

    def answer(way):
        return [[8.0, np.nan], [0.5, 5 * (1 + difference * (way == "textbook"))]]

    return dataclasses.replace(step.STEP, answer=answer, allowed=allowed)


def test_other_answers_than_ours_are_an_error():
    with pytest.raises(ValueError, match="step: other answers than ours by textbook"):
        measuring.agreement(answering(1.0))
    assert measuring.agreement(answering(0.1))["difference"].iloc[1] == pytest.approx(0.1)


def test_answers_that_were_compared_are_not_compared_again(tmp_path, monkeypatch):
    monkeypatch.setitem(harness.TASKS, "step", answering(0.1))
    first = harness.agreement(["step"], tmp_path / "kept")
    monkeypatch.setitem(harness.TASKS, "step", answering(9.0))
    again = harness.agreement(["step"], tmp_path / "kept")
    pd.testing.assert_frame_equal(again, first)


def test_what_was_not_compared_has_no_difference_and_is_named():
    table = pd.concat([measuring.agreement(answering(0.1)), nothing_compared()])
    assert table["compared"].tolist() == ["ours", "yes", "ours", *["no"] * (len(table) - 3)]
    assert table["difference"].notna().sum() == 1
    words = report.agreement_in_words(table)
    assert words.startswith("1 of the 1 ways that were compared")
    assert "Not compared, of tried: torch.compile, bfloat16" in words


def nothing_compared():
    """Of what was tried nothing is."""
    return measuring.agreement(step.TRIED)


def test_tasks_reach_a_fresh_process_as_they_are():
    for task in harness.TASKS.values():
        assert ForkingPickler.dumps(task)
        assert "ours" in task.ways
        for case in [*task.sizes["quick"], *task.sizes["full"]]:
            assert set(case.get("ways", task.ways)) <= set(task.ways)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # wildlife-tools calls what pandas 3 lacks
@pytest.mark.parametrize(
    "name", ["evaluation", "loss", "photos", "step", "embedding", "epoch", "peers"]
)
def test_all_compared_ways_give_our_answers(name):
    table = measuring.agreement(harness.TASKS[name]).set_index("way")
    assert table.loc["ours", "compared"] == "ours"
    assert table["compared"].eq("yes").any() or not set(table.index) & set(measuring.PACKAGES)


@pytest.mark.slow
def test_photos_at_reduced_size_differ_little_on_average():
    (ours,), (theirs,) = (photos.pixels(way) for way in ("ours", "textbook"))
    assert 0 < np.abs(theirs - ours).mean() < 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["photos", "step", "growth"])
def test_a_task_measures_each_way(name, tmp_path):
    table = measuring.compare(harness.TASKS[name], "quick", 1, tmp_path / "measured.csv")
    cases = [column for column in table if column not in measuring.MEASURED]
    assert not table.duplicated([*cases, "way"]).any()
    assert set(table["way"]) == set(harness.TASKS[name].ways)
    assert (table["seconds"] > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["embedding", "epoch"])
def test_ours_runs_beside_other_packages(stage):
    peers.prepare_peers("ours, first pass", stage, "cut before", 4, "demo", 2)()


@pytest.mark.slow
def test_one_call_fills_all_rows_of_a_gpu(tmp_path, capsys):
    harness.main(["gpu", "--rounds", "1"], tmp_path, "quick")
    found = harness.measured(tmp_path)
    assert set(found) == {task.name for task in harness.GPU}
    for task in harness.GPU:
        assert set(found[task.name]["way"]) == set(task.ways)
    assert "textbook, as many workers" in capsys.readouterr().out


def test_a_gpu_that_is_not_there_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measuring.torch.cuda, "is_available", lambda: False)
    harness.main(["gpu"], tmp_path)
    assert capsys.readouterr().out.count("not measured here: no GPU") == len(harness.GPU)
    assert not list(tmp_path.iterdir())


def test_an_unknown_task_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        harness.main(["los"], tmp_path)
    assert "no task los" in capsys.readouterr().err


def test_lines_of_user_code_leave_out_what_explains_it():
    def written():
        """Two lines of

        explanation."""
        # and one more

        return 1

    assert peers.lines_of(written) == 2
    assert set(peers.lines()["way"]) == set(peers.WRITTEN)


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


@pytest.mark.parametrize("name", harness.measured())
def test_what_is_committed_was_measured_in_full(name):
    table = harness.measured()[name]
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
    full = harness.measured()
    table = report.sources(full)
    assert table.groupby("task")["measurements"].sum().to_dict() == {
        k: len(v) for k, v in full.items()
    }
    own = report.sources(
        {"made": made([1], [2]).assign(machine="a", date="2026-01-02", load=[3, 4])}
    )
    assert own.loc[0].tolist() == ["made", "a", "2026-01-02", 2, 3.5]


def test_what_was_not_measured_is_said():
    assert report.on_a_gpu({}) == ""
    assert report.speeds({}).empty
    assert report.speeds_in_words(report.speeds({}), {}).endswith("not measured in full.")
    assert report.speeds_readable(report.speeds({})).empty


def test_speeds_are_those_of_the_first_source_that_has_them():
    rows = [
        ("embedding", kind, way, turn, seconds * (turn + 1), megabytes)
        for kind in ("12 megapixels", "cut before")
        for way, seconds, megabytes in (
            ("ours", 1, 10),
            ("ours, first pass", 4, 20),
            ("wildlife-tools", 12, 40),
        )
        for turn in range(2)
    ]
    columns = ["stage", "kind", "way", "round", "seconds", "megabytes"]
    full = {"peers": pd.DataFrame(rows, columns=columns), "step": made([1, 1], [2, 4])}
    table = report.speeds(full)
    found = table["ratio"].to_dict()
    assert found == {
        ("embedding, first pass", "wildlife-tools"): 3,
        ("embedding, later passes", "wildlife-tools"): 12,
        ("embedding, photos cut before", "wildlife-tools"): 12,
        ("training step", "textbook"): 3,
    }
    assert table.loc[("embedding, first pass", "wildlife-tools"), "memory"] == 2
    shown = report.speeds_readable(table)
    assert shown["textbook"].tolist() == ["", "", "", "3.0 (2.0 to 4.0)"]
    assert report.speeds_claim(table) == "Ours is faster in 4 of 4 comparisons"
    (axes,) = report.speeds_figure(table, "t").axes
    assert [line.get_xdata().tolist() for line in axes.lines[1:]] == [[3, 12, 12], [], [3]]


def test_the_committed_measurements_are_told():
    full = harness.measured()
    words = report.speeds_in_words(report.speeds(full), full)
    assert len(words.partition(". ")[0].split()) <= 25
    assert len(report.speeds_readable(report.speeds(full))) == len(report.SPEEDS) == 12
    assert report.floors(full).count("(ours ") == 3
    assert report.sources_in_words(report.sources(full)).startswith("- ")


def test_rates_on_a_gpu_are_shares_of_its_products():
    full = {
        "epoch": made([2], [9]).assign(photos=1000, machine="some GPU"),
        "gpu_embedding": made([1], [9]).assign(photos=1000),
        "gpu_product": made([1e-3], [1]),
    }
    words = report.on_a_gpu(full)
    assert words.startswith("Preset `paper` on some GPU:")
    assert "epoch: 500 photos/s" in words
    assert "1,100 TFLOP/s" in words  # 2 * 8192**3 in a millisecond
