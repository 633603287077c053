"""The label audit, against slow versions of its definitions and planted errors."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import miewid_core.beyond_paper.identify.embeddings
from miewid_core.beyond_paper import mislabels

RECALL = ["recall", "recall_low", "recall_high"]


def animals(individuals=8, encounters=4, frames=1, spread=0.3, seed=0, species=("ant", "bee")):
    """Rows and embeddings: each individual a direction, each encounter near it."""
    rng = np.random.default_rng(seed)
    rows, embeddings = [], []
    for kind in species:
        for name in range(individuals):
            center = rng.normal(size=32)
            for visit in range(encounters):
                seen = center + spread * rng.normal(size=32)
                for frame in range(frames):
                    rows.append((f"{kind}{name}-{visit}-{frame}", kind, f"{kind}/{name}"))
                    rows[-1] += (f"{kind}{name}-{visit}" if frames > 1 else "",)
                    embeddings.append(seen + 0.01 * rng.normal(size=32))
    names = ["annotation_id", "species", "individual", "encounter"]
    table = pd.DataFrame(rows, columns=names)
    table["viewpoint"] = ""
    table["path"] = "photos/" + table["species"] + "/" + table["annotation_id"] + ".jpg"
    return np.array(embeddings, dtype=np.float32), table


def slowly(embeddings, rows):
    """Suspicion of each annotation, from every pair."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    found = {}
    for i, a in rows.iterrows():
        own, other = [], []
        for j, b in rows.iterrows():
            if i == j or a["species"] != b["species"]:
                continue
            if a["individual"] != b["individual"]:
                other.append(unit[i] @ unit[j])
            elif a["encounter"] == "" or a["encounter"] != b["encounter"]:
                own.append(unit[i] @ unit[j])
        found[a["annotation_id"]] = max(other) - max(own) if own and other else np.nan
    return found


@pytest.mark.parametrize("frames", [1, 2])
def test_suspicion_is_as_from_every_pair(frames, monkeypatch):
    monkeypatch.setattr(miewid_core.beyond_paper.identify.embeddings, "BLOCK", 7)
    embeddings, rows = animals(5, 3, frames, spread=1.5)
    rows.loc[0, "individual"] = "ant/alone"
    listed = mislabels.audit(embeddings, rows).set_index("annotation_id")["suspicion"]
    expected = pd.Series(slowly(embeddings, rows))
    pd.testing.assert_series_equal(
        listed.sort_index(), expected.sort_index(), check_names=False, atol=1e-6
    )
    judged = listed.dropna()
    assert judged.is_monotonic_decreasing
    assert listed.iloc[len(judged) :].isna().all()


def test_a_wrong_label_comes_first_with_the_right_one_proposed():
    embeddings, rows = animals()
    truth = rows.loc[5, "individual"]
    rows.loc[5, "individual"] = "ant/6"
    first = mislabels.audit(embeddings, rows).iloc[0]
    assert first["annotation_id"] == rows.loc[5, "annotation_id"]
    assert first["proposed"] == truth
    assert first["photo"] == f"ant/{first['annotation_id']}.jpg"
    near = rows.set_index("annotation_id")["individual"]
    assert near[first["nearest_own"]] == "ant/6"
    assert near[first["nearest_other"]] == truth
    assert first["suspicion"] == pytest.approx(first["other"] - first["own"])


def test_frames_of_one_sighting_do_not_vouch_for_one_another():
    """A whole sighting under a wrong name: its frames lie side by side, and are found."""
    embeddings, rows = animals(frames=3)
    wrong = rows["encounter"] == "bee2-1"
    rows.loc[wrong, "individual"] = "bee/4"
    listed = mislabels.audit(embeddings, rows)
    assert set(listed["annotation_id"].head(3)) == set(rows.loc[wrong, "annotation_id"])


def test_the_only_sighting_of_an_individual_is_not_judged():
    embeddings, rows = animals()
    rows.loc[3, "individual"] = "ant/new"
    last = mislabels.audit(embeddings, rows).iloc[-1]
    assert last["individual"] == "ant/new"
    assert np.isnan(last["suspicion"])
    assert last["nearest_own"] == ""


def test_order_of_rows_does_not_matter():
    embeddings, rows = animals(spread=1.0)
    order = np.random.default_rng(1).permutation(len(rows))
    again = mislabels.audit(embeddings[order], rows.iloc[order])
    keep = ["annotation_id", "suspicion", "own", "other", "nearest_own", "nearest_other"]
    first = mislabels.audit(embeddings, rows)
    pd.testing.assert_frame_equal(
        first[keep].reset_index(drop=True), again[keep].reset_index(drop=True)
    )


@given(st.floats(0.001, 1), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_planting_changes_that_share_within_the_species(share, seed):
    _, rows = animals()
    wrong = mislabels.plant(rows, share, np.random.default_rng(seed))
    changed = wrong["individual"] != rows["individual"]
    assert changed.equals(wrong["planted"])
    assert changed.sum() == max(1, round(share * len(rows)))
    assert (wrong["individual"].str.partition("/")[0] == wrong["species"]).all()
    again = mislabels.plant(rows, share, np.random.default_rng(seed))
    assert wrong.equals(again)


def test_planting_keeps_the_side_as_a_wrong_name_does():
    _, rows = animals()
    rows["viewpoint"] = np.where(np.arange(len(rows)) // 4 % 2, "left", "right")  # by individual
    side = rows.groupby("individual")["viewpoint"].first()
    wrong = mislabels.plant(rows, 1, np.random.default_rng(0))
    assert wrong["planted"].all()
    assert (wrong["individual"].map(side) == wrong["viewpoint"]).all()


def test_planting_needs_two_individuals_of_a_species():
    _, rows = animals(individuals=1)
    with pytest.raises(ValueError, match="no species has two individuals"):
        mislabels.plant(rows, 0.1, np.random.default_rng(0))
    _, more = animals(individuals=2, species=("cat",))
    both = pd.concat([rows, more], ignore_index=True)
    wrong = mislabels.plant(both, 1, np.random.default_rng(0))
    assert set(wrong.loc[wrong["planted"], "species"]) == {"cat"}


def test_look_alikes_are_the_nearest_others_of_species_and_side():
    embeddings, rows = animals(4, 3, spread=1.0)
    rows["viewpoint"] = np.where(np.arange(len(rows)) // 3 % 2, "left", "right")  # by individual
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    alike = mislabels.look_alikes(embeddings, rows)
    for i, one in rows.iterrows():
        cosines = {
            unit[i] @ unit[j]: two["individual"]
            for j, two in rows.iterrows()
            if one["individual"] != two["individual"]
            and (one["species"], one["viewpoint"]) == (two["species"], two["viewpoint"])
        }
        assert alike[i] == cosines[max(cosines)]
    wrong = mislabels.plant(rows, 0.5, np.random.default_rng(0), alike)
    planted = wrong["planted"].to_numpy()
    assert (wrong["individual"][planted] == alike[planted]).all()
    assert (wrong["individual"][~planted] == rows["individual"][~planted]).all()


def test_nobody_is_like_a_lone_individual():
    embeddings, rows = animals(individuals=1)
    assert set(mislabels.look_alikes(embeddings, rows)) == {""}


def test_look_alikes_are_harder_to_find():
    embeddings, rows = animals(individuals=12, encounters=4, spread=1.2)
    table = mislabels.planting_test(embeddings, rows, 0.05, plantings=5)
    top = table[table["shown"] == 0.1].set_index("wrong")
    assert top.loc["look_alike", "recall"] + 0.1 < top.loc["random", "recall"]


def test_precision_and_recall_by_hand():
    listed = pd.DataFrame({"annotation_id": list("abcdefghij")})
    assert mislabels.found(listed, ["a", "c", "j"], 0.3) == [2 / 3, 2 / 3]
    assert mislabels.found(listed, ["a", "c", "j"], 1) == [0.3, 1]


@pytest.mark.slow
def test_planted_errors_are_found_by_good_embeddings_and_not_by_noise():
    embeddings, rows = animals(individuals=10, encounters=8, spread=0.4)
    table = mislabels.planting_test(embeddings, rows, 0.05, plantings=5, seed=1)
    assert table["wrong"].unique().tolist() == ["random", "look_alike"]
    top = table[(table["shown"] == 0.05) & (table["wrong"] == "random")].iloc[0]
    assert top[["planted", "judged"]].tolist() == [8, 160]
    assert top[["precision", "recall"]].min() > 0.9
    noise = np.random.default_rng(0).normal(size=embeddings.shape)
    blind = mislabels.planting_test(noise, rows, 0.05, plantings=20)
    blind = blind[blind["wrong"] == "random"]
    half = blind[blind["shown"] == 0.5].iloc[0]
    assert half["recall"] == pytest.approx(0.5, abs=0.12)  # 160 planted: deviation 0.04
    assert half["recall_low"] < half["recall"] < half["recall_high"]
    assert blind["precision"].max() < 0.2


def test_words_and_curves_follow_the_table():
    embeddings, rows = animals(individuals=6, encounters=8)
    table = mislabels.planting_test(embeddings, rows, 0.05, plantings=4)
    words, more = mislabels.in_words(table), mislabels.details(table)
    assert more.startswith("5 of 96 labels were made wrong, 4 times (brackets: the middle 95 %).")
    rows = table.set_index(["shown", "wrong"])
    for kind, name in (("random", "random"), ("look_alike", "look-alike")):
        recall, precision = rows.loc[(0.2, kind), "recall"], rows.loc[(0.01, kind), "precision"]
        assert f"{100 * recall:.0f} % (" in words.partition(f" of {name}")[0]
        assert f"{100 * precision:.0f} % (" in more.partition("the list, ")[2]
        assert f"{100 * recall:.0f} % of {name}" in mislabels.claim(table)
    drawn = {tuple(line.get_ydata()) for line in mislabels.curves(table, "title").axes[0].lines}
    for _, own in table.groupby("wrong"):
        assert tuple(100 * own["recall"]) in drawn


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.3, 0.9, "better"), (0.1, 0.3, "not shown to be better"), (0.0, 0.1, "worse")],
)
def test_a_list_is_better_than_a_random_order_if_its_interval_says_so(low, high, verdict):
    table = mislabels.planting_test(*animals(individuals=6, encounters=8), 0.05, plantings=2)
    table = table.assign(recall_low=low, recall_high=high)
    told = f"the first fifth is {verdict} for random errors and {verdict} for look-alike errors."
    assert told in mislabels.details(table)


def test_the_notebook_quotes_the_saved_table_of_real_photos():
    folder, notebook = (Path(__file__).parents[2] / name for name in ("figures", "notebooks"))
    table = pd.read_csv(folder / "realdata" / "label_audit_planted.csv")
    species = pd.read_csv(folder / "realdata" / "count_by_species.csv")["species"].nunique()
    rows = table[(table["shown"] == 0.2) & (table["score"] == "suspicion")].set_index("wrong")
    random, alike = (
        "{:.0f} % ({:.0f} to {:.0f})".format(*100 * rows.loc[kind, RECALL].astype(float))
        for kind in mislabels.KINDS
    )
    told = (notebook / "15_labels_and_counts.ipynb").read_text(encoding="utf-8")
    assert species == 11
    assert f"eleven species ({rows['annotations'].iloc[0]:,.0f} test annotations of" in told
    assert f"holds {random} of random and {alike} of look-alike wrong labels" in told


def test_panels_show_the_suspect_its_namesake_and_its_like(photos, tmp_path):
    embeddings = np.random.default_rng(0).normal(size=(len(photos), 8))
    listed = mislabels.audit(embeddings, photos)
    rows = mislabels.panels(listed, photos, tmp_path, n=3, size=24)
    assert [len(row) for row in rows] == [7, 4]
    gap, caption, _ = rows[0][3]  # parts the two of a row
    assert (gap.min(), caption) == (255, "")
    names = photos.set_index("annotation_id")["name"]
    first = listed.iloc[0]
    assert [caption for _, caption, _ in rows[0][:3]] == [
        f"{first['species'].replace('_', ' ')}\nfiled as {names[first['annotation_id']]}",
        f"also {names[first['nearest_own']]}\ncosine {first['own']:.2f}",
        f"like {names[first['nearest_other']]}\ncosine {first['other']:.2f}",
    ]
    assert rows[0][0][0].shape == (24, 24, 3)
