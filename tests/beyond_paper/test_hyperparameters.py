"""The search of hyperparameters: on no test row, resumable anywhere, pruned by the median."""

import dataclasses
import itertools

import numpy as np
import optuna
import pandas as pd
import pytest
import torch
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from PIL import Image

from miewid_core import config, splits, training
from miewid_core.beyond_paper import hyperparameters
from miewid_core.beyond_paper.hyperparameters import (
    SPACE,
    Search,
    parts_of,
    search,
    search_and_check,
    shared_with_test,
)
from miewid_core.chips import ChipDataset, ChipStore
from miewid_core.paper.study import open_study
from miewid_core.readers.load import load_catalog

TINY = config.preset("demo", image_size=32, batch_size=16, epochs=4, warmup_epochs=1)
RUNGS = (1, 2)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """CSV of 2 species x 9 individuals x 8 photos of 32 px in encounters of two."""
    folder, rows = tmp_path_factory.mktemp("drawn"), []
    generator = np.random.default_rng(0)
    for species, name in itertools.product(("ant", "bee"), "abcdefghi"):
        colour = generator.integers(40, 216, 3)
        for photo in range(8):
            pixels = colour + generator.integers(-40, 41, (32, 32, 3))
            file = f"{species}{name}{photo}.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / file)
            meeting = f"{name}{photo // 2}"
            rows.append({"file_name": file, "species": species, "name": name, "encounter": meeting})
    pd.DataFrame(rows).to_csv(folder / "annotations.csv", index=False)
    return folder / "annotations.csv"


@pytest.fixture(scope="module")
def halves(drawn):
    """The final training and test rows."""
    photos = load_catalog(drawn)
    final = splits.split(photos, 0)
    return splits.rows(photos, final, "train"), splits.rows(photos, final, "test")


@pytest.fixture(scope="module")
def task(halves, tmp_path_factory):
    chips = tmp_path_factory.mktemp("chips")
    return Search(parts_of(halves[0], 1), TINY, RUNGS, 0, chips)


@pytest.fixture(scope="module")
def undisturbed(task, tmp_path_factory):
    """Four trials in one go."""
    return search(task, tmp_path_factory.mktemp("whole"), 4)


def toy_score(task, config, checkpoint, title):
    """Instead of a training's, a score that falls with the distance of the scale from 30."""
    checkpoint.write_bytes(b"")
    if config.peak_rate > 0.02:
        raise FloatingPointError
    return 1 - abs(config.scale - 30) / 60 - 0.1 / config.epochs


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(hyperparameters, "_trained_score", toy_score)


@pytest.fixture(scope="module")
def found(task, tmp_path_factory):
    """Twenty trials with the toy's scores."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(hyperparameters, "_trained_score", toy_score)
        return search(task, tmp_path_factory.mktemp("toy"), 20)


def same(one, other):
    pd.testing.assert_frame_equal(hyperparameters.table(one), hyperparameters.table(other))


@pytest.mark.parametrize("seed", range(1, 12))
def test_no_row_of_the_final_test_set_is_used(halves, seed):
    train, test = halves
    parts = parts_of(train, seed)
    for rows in parts:
        assert len(rows)
        assert set(rows["annotation_id"]) <= set(train["annotation_id"])
        for own in rows.itertuples():
            clash = (test["annotation_id"] == own.annotation_id) | (
                (test["species"] == own.species) & (test["encounter"] == own.encounter)
            )
            assert not clash.any()
    new = set(test["individual"]) - set(train["individual"])
    assert new
    assert not new & set(pd.concat(parts)["individual"])
    assert not set(parts.train["annotation_id"]) & set(parts.validation["annotation_id"])


def test_what_is_shared_is_counted(halves):
    train, test = halves
    parts = parts_of(train, 1)
    table = shared_with_test(parts._replace(train=test), test).set_index("part")
    assert table.loc["train", "annotations_in_test"] == len(test)
    assert table.loc["train", "encounters_in_test"] == len(test)  # one annotation of each
    assert table.loc["validation", "annotations"] == len(parts.validation)
    known = parts.validation["individual"].isin(test["individual"])
    expected = parts.validation.loc[known, "individual"].nunique()
    assert table.loc["validation", "individuals_in_test"] == expected


def test_too_few_rows_are_refused(halves):
    train, _ = halves
    with pytest.raises(ValueError, match="are too few to split once more"):
        parts_of(train[:4], 1)


@pytest.mark.parametrize("name", config.PRESETS)
def test_every_preset_is_a_point_of_the_space(name):
    settings = config.PRESETS[name]
    point = hyperparameters.values_of(settings)
    assert all(space.low <= point[key] <= space.high for key, space in SPACE.items())
    again = dataclasses.replace(TINY, **hyperparameters.settings_of(point))
    assert hyperparameters.values_of(again) == point
    assert again.margin_high == settings.margin_high


def test_half_then_all_epochs():
    demo = config.PRESETS["demo"]
    assert hyperparameters.rungs_of(demo) == (3, 5)  # of 10
    assert hyperparameters.rungs_of(dataclasses.replace(demo, epochs=3)) == (1, 2)
    assert hyperparameters.rungs_of(demo, 1) == (1,)
    assert hyperparameters.rungs_of(demo, 8) == (4, 8)


def test_the_known_settings_come_first(undisturbed, task):
    points = [trial.params for trial in undisturbed.trials]
    paper = {"peak_rate": 1.5e-3, "scale": 51.5, "margin_low": 0.2, "margin_width": 0.3}
    assert points[0] == hyperparameters.values_of(TINY)
    assert points[1] == paper | {"sub_centers": 3}
    assert len({str(point) for point in points}) == 4


def test_a_search_in_two_goes_ends_as_one_in_one(undisturbed, task, tmp_path, monkeypatch):
    first = search(task, tmp_path, 2)
    assert len(first.trials) == 2
    same(search(task, tmp_path, 4), undisturbed)
    monkeypatch.setattr(hyperparameters, "fit", None)  # all is done: nothing is trained
    same(search(task, tmp_path, 4), undisturbed)
    same(search(task, tmp_path, 2), first)
    folder = task.path(tmp_path).parent
    assert {path.name for path in folder.iterdir()} <= {"study.db", "study.db.lock"}


@pytest.mark.parametrize("stop", [1, 6])
def test_stopped_anywhere_it_ends_the_same(undisturbed, task, tmp_path, monkeypatch, stop):
    epoch, done = training.Trainer.epoch, []

    def counted(self, *arguments):
        if len(done) == stop:
            done.append("interrupted")
            raise KeyboardInterrupt
        done.append("epoch")
        epoch(self, *arguments)

    monkeypatch.setattr(training.Trainer, "epoch", counted)
    with pytest.raises(KeyboardInterrupt):
        search(task, tmp_path, 4)
    same(search(task, tmp_path, 4), undisturbed)
    reached = sum(sum(trial.intermediate_values) for trial in undisturbed.trials)
    assert done.count("epoch") == reached  # each rung's were trained once
    storage = optuna.storages.RDBStorage(f"sqlite:///{task.path(tmp_path)}")
    states = [t.state for t in optuna.load_study(study_name="miewid", storage=storage).trials]
    storage.engine.dispose()
    assert states.count(TrialState.FAIL) == 1  # the interrupted one
    assert TrialState.RUNNING not in states


def test_another_seed_gives_other_trials(undisturbed, task, tmp_path, toy):
    other = search(dataclasses.replace(task, seed=1), tmp_path, 3)
    assert other.trials[0].params == undisturbed.trials[0].params
    assert other.trials[2].params != undisturbed.trials[2].params


def test_the_score_is_that_of_one_long_training(undisturbed, task, tmp_path):
    """Nearest neighbours by a double loop, after a training that no rung interrupted."""
    train, validation = task.parts
    store = ChipStore(task.chips_dir, TINY.image_size)
    labels, _ = pd.factorize(train["individual"], sort=True)
    data = ChipDataset(store, store.build(train), labels, augment=True, seed=0)
    config = dataclasses.replace(TINY, epochs=RUNGS[-1])
    network, preprocess, _ = training.fit(data, np.bincount(labels), config, 0, tmp_path / "c")
    chips = [store.read(key) for key in store.build(validation)]
    with torch.inference_mode():
        vectors = network(preprocess.batch(torch.from_numpy(np.stack(chips)))).double().numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    right = {"ant": [], "bee": []}
    for i, query in enumerate(validation.itertuples()):
        similar = {
            j: vectors[i] @ vectors[j]
            for j, other in enumerate(validation.itertuples())
            if j != i and other.species == query.species
        }
        nearest = max(similar, key=similar.get)
        right[query.species].append(validation["individual"][nearest] == query.individual)
    expected = np.mean([np.mean(own) for own in right.values()])
    assert undisturbed.trials[0].value == pytest.approx(expected)


@pytest.mark.parametrize(("schedule", "goes_on"), [("level", False), ("paper", True)])
def test_a_rung_goes_on_where_its_rates_are_the_same(
    task, tmp_path, monkeypatch, schedule, goes_on
):
    """The "level" schedule falls at its end: a short training is no part of a longer one."""
    there = []

    def score(task, config, checkpoint, title):
        there.append((config.epochs, checkpoint.exists()))
        return toy_score(task, config, checkpoint, title)

    monkeypatch.setattr(hyperparameters, "_trained_score", score)
    other = dataclasses.replace(task, config=dataclasses.replace(TINY, schedule=schedule))
    search(other, tmp_path, 2)
    assert there[:2] == [(1, False), (2, goes_on)]


def test_trials_below_the_median_of_the_complete_ones_are_stopped(found):
    complete = []
    for number, trial in enumerate(found.trials):
        scores = trial.intermediate_values
        if not scores:  # diverged
            assert trial.params["peak_rate"] > 0.02
            assert trial.state == TrialState.PRUNED
            continue
        reached = [scores[RUNGS[0]], *[own[RUNGS[0]] for own in complete]]
        stopped = len(complete) >= 2 and reached[0] < np.median(reached[1:])
        assert (trial.state == TrialState.PRUNED) == stopped, number
        assert (RUNGS[1] in scores) == (not stopped)
        complete += [] if stopped else [scores]
    states = [trial.state for trial in found.trials]
    assert 2 < states.count(TrialState.PRUNED) < 18
    assert abs(found.best_params["scale"] - 30) < 5  # it found where the toy is best


def test_each_search_has_its_own_file(task, tmp_path, monkeypatch):
    fewer = task.parts._replace(validation=task.parts.validation[1:])
    less = task.parts._replace(train=task.parts.train[1:])
    changes = [{"seed": 1}, {"rungs": (2,)}, {"parts": fewer}, {"parts": less}]
    tasks = [task, *[dataclasses.replace(task, **change) for change in changes]]
    paths = {one.path(tmp_path) for one in tasks}
    assert len(paths) == 5
    assert task.path(tmp_path) in paths
    assert {path.parent.parent for path in paths} == {tmp_path / "tuning"}
    monkeypatch.setitem(SPACE, "scale", FloatDistribution(20, 60))
    assert task.path(tmp_path) not in paths


def test_a_single_trial_is_refused(task, tmp_path):
    with pytest.raises(ValueError, match="trials is 1; it must be at least 2"):
        search(task, tmp_path, 1)


def test_the_table_has_every_trial_and_no_time(found):
    table = hyperparameters.table(found)
    scores = ["top1_after_1", "top1_after_2"]
    assert table.columns.tolist() == ["trial", *SPACE, *scores, "state"]
    assert table["trial"].tolist() == list(range(20))
    assert set(table["state"]) == {"complete", "pruned"}
    assert table.loc[table["state"] == "pruned", "top1_after_2"].isna().all()
    assert table["top1_after_2"].max() == pytest.approx(100 * found.best_value)


def test_the_best_stands_beside_the_preset_and_the_paper(found, task):
    table = hyperparameters.beside(found, task).set_index("setting")
    assert table.index.tolist() == [*SPACE, "top-1 (%) here, after 2 epochs"]
    assert "paper" not in table  # whose results these are not
    assert table["a1_values"][:5].tolist() == [1.5e-3, 51.5, 0.2, 0.3, 3]
    assert table.loc["scale", "preset"] == TINY.scale
    assert table["best"].iloc[-1] == pytest.approx(100 * found.best_value)
    assert table["preset"].iloc[-1] == pytest.approx(100 * found.trials[0].value)
    assert table["lowest"][:5].tolist() == [3e-4, 10, 0, 0, 1]


@pytest.fixture(scope="module")
def many():
    """Sixty trials whose score is the lowest margin; the last one diverged."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(0))
    for _ in range(60):
        trial = study.ask(SPACE)
        trial.report(trial.params["margin_low"], 1)
        study.tell(trial, trial.params["margin_low"])
    study.tell(study.ask(SPACE), state=TrialState.PRUNED)
    return study


def test_importance_finds_what_matters(many):
    table = hyperparameters.importance(many, 1, 0)
    assert table["setting"][0] == "margin_low"
    assert table["importance"][0] > 0.9
    assert table["importance"].sum() == pytest.approx(1)
    pd.testing.assert_frame_equal(table, hyperparameters.importance(many, 1, 0))


def test_below_fifty_trials_nothing_is_said_to_matter(found, many):
    assert hyperparameters.landscape(found, 1, 0, "title") == {}
    assert "20 trials can't tell which settings matter" in hyperparameters.landscape_in_words(found)
    drawn = hyperparameters.landscape(many, 1, 0, "title")
    assert list(drawn) == ["hyperparameters_importance", "hyperparameters_scatter"]
    assert "can't" not in hyperparameters.landscape_in_words(many)
    bars, _ = drawn["hyperparameters_importance"]
    assert bars.axes[0].get_yticklabels()[0].get_text() == "margin_low"
    figure, data = drawn["hyperparameters_scatter"]
    dots = figure.axes[0].collections[0].get_offsets()
    assert np.asarray(dots) == pytest.approx(data.iloc[:, 1:3].to_numpy())


def test_the_history_shows_every_trial_at_half_and_at_its_end(found):
    table = hyperparameters.table(found)
    figure = hyperparameters.history_plot(table, RUNGS, "history")
    for line, rung in zip(figure.axes[0].lines, RUNGS, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), table[f"top1_after_{rung}"])
    best = table["trial"][table["top1_after_2"].idxmax()]
    claim = (
        "No trial was better than trial 0, the preset" if best == 0 else f"Trial {best} was best"
    )
    assert hyperparameters.history_claim(table, RUNGS[1]) == claim


def test_the_check_trains_on_no_test_row(drawn, tmp_path):
    study = open_study(str(drawn), image_size=32, epochs=2, runs_dir=str(tmp_path / "runs"))
    study = dataclasses.replace(study, chips_dir=tmp_path / "chips", figures_dir=tmp_path)
    parts = parts_of(study.train, 2)
    point = hyperparameters.values_of(study.config)
    points = {"best": point, "preset": point, "a1_values": point | {"scale": 51.5}}
    ranks = hyperparameters.confirm(study, parts, points, epochs=1)
    assert [*ranks] == ["best", "a1_values", "untrained"]  # the preset is the best here
    saved = [pd.read_csv(path) for path in tmp_path.glob("runs/*/rows.csv")]
    saved = [rows for rows in saved if len(rows) < len(study.train)]  # but the untrained one's
    assert len(saved) == 2
    for rows in saved:
        assert set(rows["annotation_id"]) == set(parts.train["annotation_id"])
        assert not set(rows["annotation_id"]) & set(study.test["annotation_id"])
    for own in ranks.values():
        assert set(own["annotation_id"]) == set(parts.validation["annotation_id"])


def one_species(first):
    """Ranks of 18 queries of nine individuals, so many of which find theirs at once."""
    rows = [
        {"annotation_id": f"{i}{j}", "species": "ant", "individual": str(i)}
        for i, j in itertools.product(range(9), range(2))
    ]
    found = pd.array([1] * first + [2] * (18 - first), "Int64")
    return pd.DataFrame(rows).assign(first_match_rank=found, relevant=1, candidates=17)


@pytest.mark.parametrize(
    ("best", "preset", "words"),
    [
        (18, 9, "found better settings of the multi-species network than the preset's. "),
        (
            18,
            2,
            "found better settings for so short a training, in which the preset hardly learns. ",
        ),
        (18, 17, "found no settings shown to be better than the multi-species network's preset. "),
        (2, None, "found no settings of the multi-species network better than the preset's, and"),
        (18, None, "found no settings of the multi-species network better than the preset's. "),
    ],
)
def test_words_follow_the_intervals(best, preset, words):
    ranks = {"best": one_species(best)}
    ranks |= {"preset": one_species(preset)} if preset else {}
    ranks |= {"untrained": one_species(0 if preset == 9 else 2)}
    train = pd.DataFrame({"individual": ["0"], "species": ["ant"]})
    points = {"best": {"scale": 1}, "preset": {"scale": 2 if preset else 1}}
    table = hyperparameters.checked(ranks, train)
    parts = pd.DataFrame({"individuals": [160], "individuals_in_test": [107]})
    told = hyperparameters.in_words(points, table, 6, parts)
    assert told.startswith(f"A search of 6 trials {words}")
    assert ("decides nothing" in told) == (best == 2)
    assert len(told.partition(". ")[0].split()) <= 25
    assert "; 18 queries of 1 species, each trained once" in told
    assert "107 of its 160 training individuals" in told
    shown = hyperparameters.readable_check(table, points)
    assert shown["gain over untrained (points)"].iloc[-1] == ""
    assert ("(the preset's)" in shown["settings"][0]) == (not preset)


def test_tables_for_readers_say_each_thing_once(found, task):
    shown = hyperparameters.readable(hyperparameters.table(found))
    assert [*shown][-3:] == ["top-1 after 1 epochs (%)", "top-1 after 2 epochs (%)", ""]
    assert (
        shown.iloc[0].tolist()[1:6] == ["0.0200", "24.0", "0.10", "0.15", "3"] or len(shown) == 20
    )
    best = hyperparameters.readable_best(hyperparameters.beside(found, task))
    assert best["setting"].iloc[0] == "peak rate"
    same = found.best_params == found.trials[0].params
    assert ("best trial (the preset)" in best) == same


@pytest.mark.parametrize("seed", [0, 7])
def test_search_and_check_score_no_individual_in_common(halves, seed):
    train, _ = halves
    both = search_and_check(train, seed)
    for name, further in (("search", 1), ("check", 2)):
        whole = parts_of(train, seed + further)
        pd.testing.assert_frame_equal(both[name].train, whole.train)
        kept = whole.validation["individual"].isin(both[name].validation["individual"])
        rows = whole.validation[kept].reset_index(drop=True)
        pd.testing.assert_frame_equal(both[name].validation, rows)
    search, check = (set(parts.validation["individual"]) for parts in both.values())
    assert not search & check
    every = parts_of(train, seed + 1).validation.drop_duplicates("individual")
    for species, own in every.groupby("species")["individual"]:
        assert len(search & set(own)) == -(-len(own) // 2), species
    again = search_and_check(train.sample(frac=1, random_state=1), seed)
    assert set(again["search"].validation["individual"]) == search


def test_too_few_to_check_are_refused(halves, monkeypatch):
    whole = parts_of(halves[0], 1)
    first = whole.validation.groupby("species").head(1)
    few = whole._replace(validation=first.reset_index(drop=True))
    monkeypatch.setattr(hyperparameters, "parts_of", lambda *given: few)
    with pytest.raises(ValueError, match="leave none to check the outcome on"):
        search_and_check(halves[0], 0)
