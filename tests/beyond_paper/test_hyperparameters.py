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

from miewid_core import config, training
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

TINY = config.preset("demo", image_size=32, batch_size=16, epochs=2, warmup_epochs=1)
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
def study(drawn, tmp_path_factory):
    opened = open_study(str(drawn))
    places = {name: tmp_path_factory.mktemp(name) for name in ("chips_dir", "figures_dir")}
    return dataclasses.replace(opened, config=TINY, **places)


@pytest.fixture(scope="module")
def halves(study):
    """The final training and test rows."""
    return study.train, study.test


@pytest.fixture(scope="module")
def task(study):
    return Search(study, parts_of(study.train, 1))


def kept_in(task, folder):
    """The search, with its file and its trainings in a folder."""
    return dataclasses.replace(task, study=dataclasses.replace(task.study, runs_dir=folder))


@pytest.fixture(scope="module")
def undisturbed(task, tmp_path_factory):
    """Four trials in one go."""
    return search(kept_in(task, tmp_path_factory.mktemp("whole")), 4)


def toy_score(study, parts, point, epochs, title):
    """Instead of a training's, a score that falls with the distance of the scale from 30."""
    if point["peak_rate"] > 0.02:
        raise FloatingPointError
    return 1 - abs(point["scale"] - 30) / 60 - 0.1 / epochs


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(hyperparameters, "top_1", toy_score)


@pytest.fixture(scope="module")
def found(task, tmp_path_factory):
    """Twenty trials with the toy's scores."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(hyperparameters, "top_1", toy_score)
        return search(kept_in(task, tmp_path_factory.mktemp("toy")), 20)


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


def test_half_then_all_epochs(study):
    demo = dataclasses.replace(study, config=config.PRESETS["demo"])  # 10 epochs

    def rungs(epochs, photos=0):
        return Search(hyperparameters.shortened(demo, epochs, photos), None).rungs

    assert rungs(0) == (3, 5)
    assert rungs(1) == (1,)
    assert rungs(8, 100) == (4, 8)


def test_the_bill_counts_the_photos_of_both_trainings_of_each_trial(study, task, monkeypatch):
    monkeypatch.setattr(hyperparameters.bill, "rate_of", lambda config: 10)
    photos = 4 * 3 * len(task.parts.train)
    assert f"show {photos:,} photos: about {photos / 10:.0f} seconds" in task.bill(4)
    short = hyperparameters.shortened(study, 3, 20)
    assert (
        Search(short, task.parts)
        .bill(1)
        .startswith("1 trials, trainings of 2 and 3 epochs each, show 100 photos: about 10 seconds")
    )


def test_the_known_settings_come_first(undisturbed, task):
    points = [trial.params for trial in undisturbed.trials]
    paper = {"peak_rate": 1.5e-3, "scale": 51.5, "margin_low": 0.2, "margin_width": 0.3}
    assert points[0] == hyperparameters.values_of(TINY)
    assert points[1] == paper | {"sub_centers": 3}
    assert len({str(point) for point in points}) == 4


@pytest.mark.slow
def test_a_search_in_two_goes_ends_as_one_in_one(undisturbed, task, tmp_path, monkeypatch):
    task = kept_in(task, tmp_path)
    first = search(task, 2)
    assert len(first.trials) == 2
    same(search(task, 4), undisturbed)
    monkeypatch.setattr(hyperparameters, "top_1", None)  # all is done: nothing is trained
    same(search(task, 4), undisturbed)
    same(search(task, 2), first)
    folder = task.path.parent
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
    task = kept_in(task, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        search(task, 4)
    same(search(task, 4), undisturbed)
    reached = sum(sum(trial.intermediate_values) for trial in undisturbed.trials)
    assert done.count("epoch") == reached  # each rung's were trained once
    storage = optuna.storages.RDBStorage(f"sqlite:///{task.path}")
    states = [t.state for t in optuna.load_study(study_name="miewid", storage=storage).trials]
    storage.engine.dispose()
    assert states.count(TrialState.FAIL) == 1  # the interrupted one
    assert TrialState.RUNNING not in states


def test_another_seed_gives_other_trials(undisturbed, task, tmp_path, toy):
    other = search(dataclasses.replace(kept_in(task, tmp_path), seed=1), 3)
    assert other.trials[0].params == undisturbed.trials[0].params
    assert other.trials[2].params != undisturbed.trials[2].params


def test_the_score_is_that_of_one_long_training(undisturbed, task, tmp_path):
    """Nearest neighbours by a double loop, after a training."""
    train, validation = task.parts
    store = ChipStore(task.study.chips_dir, TINY.image_size)
    labels, _ = pd.factorize(train["individual"], sort=True)
    data = ChipDataset(store, store.build(train), labels, augment=True, seed=0)
    network, preprocess, _ = training.fit(data, np.bincount(labels), TINY, 0, tmp_path / "c")
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
    task = kept_in(task, tmp_path)
    fewer = task.parts._replace(validation=task.parts.validation[1:])
    less = task.parts._replace(train=task.parts.train[1:])
    longer = hyperparameters.shortened(task.study, 4, 0)
    changes = [{"seed": 1}, {"study": longer}, {"parts": fewer}, {"parts": less}]
    tasks = [task, *[dataclasses.replace(task, **change) for change in changes]]
    paths = {one.path for one in tasks}
    assert len(paths) == 5
    assert task.path in paths
    assert {path.parent.parent for path in paths} == {tmp_path / "tuning"}
    monkeypatch.setitem(SPACE, "scale", FloatDistribution(20, 60))
    assert task.path not in paths


def test_a_single_trial_is_refused(task):
    with pytest.raises(ValueError, match="trials is 1; it must be at least 2"):
        search(task, 1)


def test_the_table_has_every_trial_and_no_time(found):
    table = hyperparameters.table(found)
    scores = ["top1_after_1_epochs", "top1_after_2_epochs"]
    assert table.columns.tolist() == ["trial", *SPACE, *scores, "state"]
    assert table["trial"].tolist() == list(range(20))
    assert set(table["state"]) == {"complete", "pruned"}
    assert table.loc[table["state"] == "pruned", "top1_after_2_epochs"].isna().all()
    assert table["top1_after_2_epochs"].max() == pytest.approx(100 * found.best_value)


@pytest.mark.slow
def test_the_check_trains_on_no_test_row(study, tmp_path):
    study = dataclasses.replace(study, runs_dir=tmp_path)
    parts, preset = parts_of(study.train, 2), hyperparameters.values_of(study.config)
    table = hyperparameters.confirm(study, parts, preset | {"scale": 51.5})
    assert {"best", "preset", "untrained"} <= set(table)
    assert table["queries"].iloc[-1] == len(parts.validation)
    shown = hyperparameters.readable_check(table)
    assert shown["network"].tolist() == [*hyperparameters.NETWORKS.values()]
    assert shown.iloc[0, 2] == ""
    gain = table["best"].iloc[-1] - table["untrained"].iloc[-1]
    assert shown.iloc[2, 2].startswith(f"{gain:.1f} (")
    saved = [pd.read_csv(path) for path in tmp_path.glob("*/rows.csv")]
    saved = [rows for rows in saved if len(rows) < len(study.train)]  # but the untrained one's
    assert len(saved) == 2
    for rows in saved:
        assert set(rows["annotation_id"]) == set(parts.train["annotation_id"])
        assert not set(rows["annotation_id"]) & set(study.test["annotation_id"])
    alone = hyperparameters.confirm(study, parts, preset)  # the preset is the best here
    assert "preset" not in alone
    assert alone["best"].tolist() == table["preset"].tolist()


def of_a_check(**top_1):
    """A table of `confirm` with these means; 18 queries of one species."""
    mean = {"species": "mean", "queries": 18, "best": top_1["best"], "best_trainings": 1}
    for name, value in list(top_1.items())[1:]:
        gain = top_1["best"] - value
        mean |= {name: value, f"gain_over_{name}": gain}
        mean |= {f"gain_over_{name}_low": gain - 5, f"gain_over_{name}_high": gain + 5}
    return pd.DataFrame([mean | {"species": "ant"}, mean])


@pytest.mark.parametrize(
    ("top_1", "said"),
    [
        (
            {"best": 40, "preset": 30, "untrained": 30},
            "the best trial is better than the preset, +10",
        ),
        ({"best": 40, "preset": 37, "untrained": 30}, "no difference is shown between the best"),
        (
            {"best": 20, "preset": 30, "untrained": 30},
            "the best trial is worse than the preset, -10",
        ),
        ({"best": 40, "untrained": 30}, ""),
    ],
)
def test_words_follow_the_intervals(top_1, said):
    scores = pd.DataFrame({"top1_after_2_epochs": [26.0, 28.0] * 3, "state": "complete"})
    checked = of_a_check(**top_1)
    words = hyperparameters.in_words(checked, scores, 24.0)
    if said:
        first, second = words.split(". ")
        best = "The best of 6 trials of 2 epochs has top-1 28.0 %, the untrained network 24.0 %"
        assert first == best
        assert second.startswith(f"On other individuals {said}")
    else:
        assert words == (
            "None of 6 trials of 2 epochs beats the preset's settings, with top-1 28.0 % (the "
            "untrained network: 24.0 %)."
        )
    worse = hyperparameters.in_words(checked, scores, 28.0)
    assert worse == (
        "None of 6 trials of 2 epochs beats the untrained network: top-1 28.0 against 28.0 %."
    )


def test_what_the_words_rest_on_is_said():
    parts = pd.DataFrame({"individuals": [160], "individuals_in_test": [107]})
    told = hyperparameters.details(of_a_check(best=20, preset=25, untrained=30), parts)
    assert told[0].startswith("On other individuals the best trial is worse than the untrained")
    assert told[1].startswith("The check has 18 queries")
    assert "107 of the search's 160 training individuals" in told[2]
    alone = hyperparameters.details(of_a_check(best=20, untrained=30), parts)
    assert alone == told


def test_a_reader_sees_the_best_trials_and_the_known_ones(found, task):
    known = hyperparameters.known_points(task.study.config)
    assert [*known] == ["preset", "A.1"]
    for trial, point in zip(found.trials, known.values(), strict=False):
        assert trial.params == point
    assert [*hyperparameters.known_points(config.PRESETS["paper"])] == ["preset and A.1"]
    table = hyperparameters.table(found)
    shown = hyperparameters.readable(table, task.study.config, 12.34)
    assert [*shown] == [
        *("trial", "peak rate", "scale", "margin low", "margin width", "sub-centers"),
        *("top-1 (%) after 1 epochs", "top-1 (%) after 2 epochs"),
    ]
    last = table["top1_after_2_epochs"]
    assert shown["trial"].iloc[0].split(":")[0] == str(last.idxmax())
    assert float(shown.iloc[0, -1]) == pytest.approx(last.max(), abs=0.05)
    assert {"0: preset", "1: A.1"} < set(shown["trial"])
    assert len(shown) - 1 <= hyperparameters.BEST + 2
    assert shown.iloc[-1].tolist() == ["the untrained network", *[""] * 6, "12.3"]
    preset = shown[shown["trial"] == "0: preset"].iloc[0]
    assert preset.tolist()[1:6] == ["0.02", "24", "0.1", "0.15", "3"]
    stopped = shown[~shown["trial"].str.startswith("the")].iloc[:, -1] == "stopped"
    assert stopped.sum() == len(shown) - 1 - min(last.notna().sum(), hyperparameters.BEST)
    assert "nan" not in shown.to_string()


def test_a_species_of_one_scored_individual_is_left_out_unless_no_species_has_more(
    halves, monkeypatch
):
    whole = parts_of(halves[0], 1)
    rows = whole.validation
    bees = rows.loc[rows["species"] == "bee", "individual"].unique()
    two_bees = rows["individual"].isin(bees[:2])
    rows = rows.assign(species=np.where(two_bees, "bee", "ant"))
    for kept, species in ((rows["species"] != "", {"ant"}), (two_bees, {"bee"})):
        few = whole._replace(validation=rows[kept].reset_index(drop=True))
        monkeypatch.setattr(hyperparameters, "parts_of", lambda *given, few=few: few)
        for parts in search_and_check(halves[0], 0).values():
            assert set(parts.validation["species"]) == species
            told = shared_with_test(parts, halves[1]).set_index("part")["species"]
            assert told.to_dict() == {"train": 2, "validation": 1}


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
