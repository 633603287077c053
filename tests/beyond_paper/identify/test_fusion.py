"""Another matcher's scores: fused as WildFusion does, of known quality, and refused by row."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from miewid_core.beyond_paper.identify import candidates, fusion
from miewid_core.beyond_paper.identify.embeddings import LABELS, Embeddings, search

PEOPLE, PHOTOS = 30, 4


def embedded(seed, prefix, noise=0.9):
    """PEOPLE x PHOTOS embeddings around a direction of each individual, the same for any seed."""
    directions = np.random.default_rng(99).normal(size=(PEOPLE, 12))
    codes = np.repeat(np.arange(PEOPLE), PHOTOS)
    vectors = directions[codes] + noise * np.random.default_rng(seed).normal(size=(len(codes), 12))
    rows = pd.DataFrame({"annotation_id": [f"{prefix}{i}" for i in range(len(codes))]})
    rows = rows.assign(species="ant", individual=[f"i{c}" for c in codes], encounter="", chip="")
    return Embeddings(rows[LABELS], vectors.astype(np.float32), "w", "p")


def scored(queries, database, apart, seed=0):
    """A score for each pair: normal, its mean higher by `apart` where the pair is right."""
    rng = np.random.default_rng(seed)
    one, two = queries.rows["individual"].to_numpy(), database.rows["individual"].to_numpy()
    right = one[:, None] == two
    ids = queries.rows["annotation_id"], database.rows["annotation_id"]
    pairs = pd.MultiIndex.from_product(ids, names=["query", "candidate"]).to_frame(index=False)
    pairs["score"] = (rng.normal(size=right.shape) + apart * right).ravel()
    return pairs[pairs["query"] != pairs["candidate"]]


def first_right(found, queries):
    truth = queries.rows.set_index("annotation_id")["individual"]
    first = found[found["rank"] == 1]
    return (first["individual"] == first["query"].map(truth)).mean()


@pytest.fixture(scope="module")
def data():
    """Known photos, and two sets of queries: one calibrates, the other is judged."""
    return embedded(0, "k"), embedded(1, "t"), embedded(2, "q")


def fused(data, apart):
    known, tested, queries = data
    table = pd.concat([scored(tested, known, apart, 3), scored(queries, known, apart, 4)])
    return fusion.calibrate(table, tested, known)


def alone(data, apart):
    """Top-1 of the other score by itself."""
    known, _, queries = data
    table = scored(queries, known, apart, 4)
    best = table.loc[table.groupby("query")["score"].idxmax()]
    truth = pd.concat([known.rows, queries.rows]).set_index("annotation_id")["individual"]
    return (best["query"].map(truth) == best["candidate"].map(truth)).mean()


def test_two_good_scores_are_better_than_each(data):
    known, _, queries = data
    cosine = first_right(candidates.rank(known, queries), queries)
    other = alone(data, 2.5)
    both = first_right(candidates.rank(known, queries, 5, fused(data, 2.5)), queries)
    assert 0.3 < cosine < 0.9
    assert 0.3 < other < 0.9
    assert both > max(cosine, other) + 0.05


def test_a_perfect_score_finds_all_and_a_useless_one_costs_little(data):
    known, _, queries = data
    cosine = first_right(candidates.rank(known, queries), queries)
    perfect = candidates.rank(known, queries, 5, fused(data, 40))
    useless = candidates.rank(known, queries, 5, fused(data, 0))
    assert first_right(perfect, queries) == 1
    assert first_right(useless, queries) > cosine - 0.05


def test_calibration_is_the_known_posterior(data):
    share, apart = 1 / PEOPLE, 2.0
    at = np.linspace(-1, 3, 9)
    right, wrong = share * norm.pdf(at - apart), (1 - share) * norm.pdf(at)
    found = fused(data, apart).other.predict(at)
    assert np.abs(found - right / (right + wrong)).mean() < 0.05


def test_the_unit_of_a_score_does_not_matter(data):
    known, tested, queries = data
    table = pd.concat([scored(tested, known, 2, 3), scored(queries, known, 2, 4)])
    tables = table, table.assign(score=100 * table["score"] + 7)
    one, two = (
        candidates.rank(known, queries, 5, fusion.calibrate(of, tested, known)) for of in tables
    )
    pd.testing.assert_frame_equal(one, two, atol=1e-6)


def test_fused_by_hand(data):
    """The mean of both calibrated scores, or the cosine's alone; best first; ties by cosine."""
    known, tested, queries = data
    table = pd.concat([scored(tested, known, 2, 3), scored(queries, known, 2, 4)])
    table = table[table["query"].str.startswith("t") | (table["candidate"] < "k5")]
    both = fusion.calibrate(table, tested, known)
    query = queries.of(queries.rows["annotation_id"] == "q7")
    (cosines,), (rows,) = search(known, query, len(known.rows))
    there = table.set_index(["query", "candidate"])["score"]
    photos = []
    for cosine, row in zip(cosines, rows, strict=True):
        parts = [both.cosine.predict([cosine])[0]]
        pair = "q7", f"k{row}"
        parts += [both.other.predict([there[pair]])[0]] if pair in there.index else []
        photos.append((known.rows["individual"][row], f"k{row}", np.mean(parts)))
    assert len({score for *_, score in photos}) < len(photos)  # ties
    best = pd.DataFrame(photos).sort_values(2, ascending=False, kind="stable").drop_duplicates(0)
    found = candidates.rank(known, query, PEOPLE, both)
    assert found["match"].tolist() == best[1].tolist()
    assert found["score"].tolist() == pytest.approx(best[2].tolist())


def test_without_other_scores_nothing_changes(data):
    known, _, queries = data
    cosine = candidates.rank(known, queries)
    assert cosine["score"].between(-1, 1).all()
    pd.testing.assert_frame_equal(cosine, candidates.rank(known, queries, 5, None))


def test_from_a_file_and_from_none(data, tmp_path):
    known, tested, queries = data
    both = Embeddings(
        pd.concat([known.rows, tested.rows], ignore_index=True),
        np.concatenate([known.vectors, tested.vectors]), "w", "p",
    )  # fmt: skip
    table = pd.concat([scored(tested, known, 2.5, 3), scored(queries, known, 2.5, 4)])
    table.to_csv(tmp_path / "scores.csv", index=False)
    rerank = fusion.from_file(str(tmp_path / "scores.csv"), tested, both, queries)
    assert first_right(candidates.rank(known, queries, 5, rerank), queries) > 0.9
    with pytest.raises(ValueError, match="too few to calibrate"):  # tested ones aren't known here
        fusion.from_file(str(tmp_path / "scores.csv"), tested, known, queries)
    assert fusion.from_file("", tested, known, queries) is None


def test_pairs_of_one_encounter_or_of_two_species_do_not_calibrate(data):
    known, tested, _ = data
    table = scored(tested, known, 2, 3)
    rows = [of.rows.assign(encounter=of.rows["individual"]) for of in (tested, known)]
    bursts = [Embeddings(r, of.vectors, "w", "p") for r, of in zip(rows, data[1::-1], strict=True)]
    with pytest.raises(ValueError, match=r"0 right and 13,920 wrong pairs .* at least 20 of each"):
        fusion.calibrate(table, *bursts)
    other = Embeddings(known.rows.assign(species="bee"), known.vectors, "w", "p")
    with pytest.raises(ValueError, match="0 right and 0 wrong pairs"):
        fusion.calibrate(table, tested, other)


IDS = {"a", "b", "7"}


class TestRead:
    @pytest.mark.parametrize("kind", ["csv", "parquet"])
    def test_a_table_with_more_columns(self, tmp_path, kind):
        table = pd.DataFrame({"score": [1, 2.5], "query": ["a", "7"], "candidate": ["b", "a"]})
        path = tmp_path / f"scores.{kind}"
        table = table.assign(matches=3)
        table.to_csv(path, index=False) if kind == "csv" else table.to_parquet(path)
        read = fusion.read_scores(path, IDS)
        assert read.to_numpy().tolist() == [["a", "b", 1.0], ["7", "a", 2.5]]

    def test_numbers_as_ids_in_parquet(self, tmp_path):
        pd.DataFrame({"query": [7], "candidate": ["a"], "score": [1]}).to_parquet(
            tmp_path / "s.parquet"
        )
        assert fusion.read_scores(tmp_path / "s.parquet", IDS)["query"].tolist() == ["7"]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("query,score\na,1\n", "has no column candidate; it needs query, candidate, score"),
            ("query,candidate,score\na,b,1\na,b,2\n", "row 2: this pair is listed before"),
            (
                "query,candidate,score\na,c,1\n",
                "row 1: candidate is no photo's annotation id",
            ),
            (
                "query,candidate,score\na,b,1\nc,b,1\n",
                "row 2: query is no photo's annotation id",
            ),
            ("query,candidate,score\na,b,\n", "row 1: score is no finite number"),
            ("query,candidate,score\na,b,high\n", "row 1: score is no finite number"),
            ("query,candidate,score\na,b,inf\n", "row 1: score is no finite number"),
            ("query,candidate,score\na,a,1\n", "row 1: a photo is paired with itself"),
            ("query,candidate,score\n,a,1\n", "row 1: query is no photo's annotation id"),
        ],
    )
    def test_faults_are_named_by_row(self, tmp_path, text, words):
        (tmp_path / "s.csv").write_text(text)
        with pytest.raises(ValueError, match=r"s\.csv") as error:
            fusion.read_scores(tmp_path / "s.csv", IDS)
        assert words in str(error.value)

    def test_many_faults_are_counted(self, tmp_path):
        (tmp_path / "s.csv").write_text("query,candidate,score\n" + "a,c,1\n" * 29)
        with pytest.raises(ValueError, match="row 20") as error:
            fusion.read_scores(tmp_path / "s.csv", IDS)
        assert str(error.value).endswith("and 37 more")

    def test_no_file(self, tmp_path):
        with pytest.raises(ValueError, match="is no CSV or Parquet file that exists"):
            fusion.read_scores(tmp_path / "s.csv", IDS)
        with pytest.raises(ValueError, match="is no CSV or Parquet file that exists"):
            fusion.read_scores(__file__, IDS)
