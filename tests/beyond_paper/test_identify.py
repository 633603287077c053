"""Candidates against a slow ranking, photos to identify, held-back ones, and plain words."""

import itertools

import numpy as np
import pandas as pd
import papermill
import pytest
from PIL import Image

from miewid_core import catalog, model
from miewid_core.beyond_paper import identify, review
from miewid_core.beyond_paper.embeddings import LABELS, Embeddings
from miewid_core.files import ROOT
from miewid_core.paper.comparison import compare


def embedded(individuals, seed, prefix="k", species="ant"):
    count = len(individuals)
    rows = pd.DataFrame({"annotation_id": [f"{prefix}{i}" for i in range(count)]})
    rows = rows.assign(species=species, individual=individuals, encounter="", chip="")
    vectors = np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)
    return Embeddings(rows[LABELS], vectors, "w", "p")


class TestCandidates:
    @pytest.mark.parametrize("k", [1, 3, 5, 50])
    def test_a_slow_ranking_of_individuals_agrees(self, k):
        names = list("aaaaaaaabbbcdddddeefghhhi")
        known, queries = embedded(names, 0), embedded(["?"] * 9, 1, "q")
        found = identify.candidates(known, queries, k)
        for query, vector in zip(queries.rows["annotation_id"], queries.vectors, strict=True):
            best = {}
            for row, name in enumerate(names):
                other = known.vectors[row]
                cosine = vector @ other / np.linalg.norm(vector) / np.linalg.norm(other)
                best[name] = max(best.get(name, (-2, None)), (cosine, f"k{row}"))
            wanted = sorted(best.items(), key=lambda item: -item[1][0])[:k]
            own = found[found["query"] == query]
            assert own["individual"].tolist() == [name for name, _ in wanted]
            assert own["match"].tolist() == [match for _, (_, match) in wanted]
            assert own["score"].tolist() == pytest.approx([s for _, (s, _) in wanted], abs=1e-5)
            assert own["rank"].tolist() == list(range(1, len(wanted) + 1))

    def test_only_its_species_unless_that_is_unknown(self):
        parts = [embedded(list("ab"), 0), embedded(list("cd"), 1, "m", "bee")]
        rows = pd.concat([part.rows for part in parts], ignore_index=True)
        known = Embeddings(rows, np.concatenate([part.vectors for part in parts]), "w", "p")
        queries = embedded(list("???"), 2, "q")
        queries.rows["species"] = ["bee", "", "cat"]
        found = identify.candidates(known, queries)
        groups = found.groupby("query")["individual"].agg(set).to_dict()
        assert groups == {"q0": {"c", "d"}, "q1": {"a", "b", "c", "d"}}
        assert found["query"].is_monotonic_increasing

    def test_no_queries_have_no_candidates(self):
        known = embedded(list("ab"), 0)
        assert list(identify.candidates(known, known.of([False, False]))) == identify.COLUMNS


@pytest.fixture
def folder(tmp_path):
    """Two photos of known species, one of none, one grayscale with a time, one corrupt."""
    for name in ("ant/1.png", "bee/2.png", "3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 10), "red").save(tmp_path / name)
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2024:05:31 12:30:00"
    Image.new("L", (20, 10), 99).save(tmp_path / "4.jpg", exif=exif)
    (tmp_path / "5.jpg").write_bytes(b"\xff\xd8\xff no photo")
    (tmp_path / "notes.txt").write_text("no photo, and no problem")
    return tmp_path


class TestUnidentified:
    def test_a_folder_becomes_catalog_rows(self, folder):
        with pytest.warns(catalog.CatalogWarning, match="dropped 1 of 5 rows: 1 problem"):
            rows = identify.unidentified(folder, ["ant", "bee"])
        assert list(rows) == catalog.COLUMNS
        species = dict(zip(rows["annotation_id"], rows["species"], strict=True))
        assert species == {"3.png": "", "4.jpg": "", "ant/1.png": "ant", "bee/2.png": "bee"}
        assert (rows["individual"] == "").all()
        assert rows[["x", "y", "w", "h", "theta"]].to_numpy().tolist() == [[0, 0, 20, 10, 0]] * 4
        assert rows["date"].dropna().tolist() == [pd.Timestamp("2024-05-31 12:30")]
        assert [problem["file"] for problem in rows.attrs["dropped"]] == ["5.jpg"]

    def test_the_only_species_is_everyones(self, folder):
        with pytest.warns(catalog.CatalogWarning):
            assert set(identify.unidentified(folder, ["ant"])["species"]) == {"ant"}

    def test_a_table_gives_boxes_and_dates(self, folder):
        table = "file_name,x,y,w,h,theta,date,annotation_id\n"
        table += (
            "3.png,1,2,3,4,0.5,2024-01-01,\n3.png,5,2,3,4,,,\n3.png,,,,,,,own\n3.png,1,2,0,4,,,\n"
        )
        (folder / "t.csv").write_text(table)
        with pytest.warns(catalog.CatalogWarning, match="box 1, 2, 0, 4 is empty"):
            rows = identify.unidentified(folder / "t.csv", ["ant"])
        assert rows["annotation_id"].tolist() == ["3.png", "3.png#2", "own"]
        boxes = rows[["x", "y", "w", "h", "theta"]].to_numpy().tolist()
        assert boxes == [[1, 2, 3, 4, 0.5], [5, 2, 3, 4, 0], [0, 0, 20, 10, 0]]
        assert rows["date"].tolist()[0] == pd.Timestamp("2024-01-01")

    @pytest.mark.parametrize(
        ("row", "problem"),
        [
            ("1,2,3,4,90", "rotation '90' is no finite number of radians"),
            ("0.1,0.2,0.5,0.4,", "is a single pixel"),
            ("300,2,30,4,", "is outside the image"),
            ("0,0,1000000,1000000,", "is outside the image"),
        ],
    )
    def test_a_box_that_no_catalog_may_have_is_left_out(self, folder, row, problem):
        (folder / "t.csv").write_text(f"file_name,x,y,w,h,theta\n3.png,{row}\n3.png,1,2,3,4,0\n")
        with pytest.warns(catalog.CatalogWarning, match="dropped 1 of 2 rows"):
            rows = identify.unidentified(folder / "t.csv", ["ant"])
        assert rows[["x", "y", "w", "h"]].to_numpy().tolist() == [[1, 2, 3, 4]]
        (dropped,) = rows.attrs["dropped"]
        assert problem in dropped["problem"]
        assert dropped["row"] == "line 2"

    def test_dates_are_read_as_a_catalogs(self, folder):
        written = ["2024-01-01T20:30:00-05:00", "2024-07-01T20:30:00+02:00", "2024-05-31"]
        table = "".join(f"3.png,{date}\n" for date in written)
        (folder / "t.csv").write_text(f"file_name,date\n{table}")
        rows = identify.unidentified(folder / "t.csv", ["ant"])
        expected = ["2024-01-01 20:30", "2024-07-01 20:30", "2024-05-31"]
        assert rows["date"].tolist() == list(map(pd.Timestamp, expected))


def test_a_camera_without_a_clock_gives_no_date(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "0000:00:00 00:00:00"
    Image.new("L", (9, 9)).save(tmp_path / "x.jpg", exif=exif)
    photos = pd.DataFrame({"path": [str(tmp_path / "x.jpg")], "date": pd.to_datetime([None])})
    assert identify.with_dates(photos)["date"].isna().all()


def sightings(individuals=12, encounters=3, frames=2):
    rows = [
        {"annotation_id": f"{i:02}{e}{f}", "individual": f"ant/{i:02}", "encounter": f"{i}-{e}"}
        for i, e, f in itertools.product(range(individuals), range(encounters), range(frames))
    ]
    return pd.DataFrame(rows).assign(species="ant")


class TestHoldBack:
    def test_new_ones_are_gone_and_others_keep_other_encounters(self):
        photos = sightings()
        tested = identify.one_an_encounter(photos, 0)
        queries, known = identify.hold_back(photos, tested, 0)
        assert len(queries) == 3
        there = queries["individual"].isin(known["individual"])
        assert there.tolist() == [True, True, False]
        assert not set(queries["encounter"]) & set(known["encounter"])
        new = queries["individual"][2]
        assert len(known) == len(photos) - 6 - 2 * 2
        assert new not in set(known["individual"])
        again = identify.hold_back(photos.sample(frac=1, random_state=1), tested, 0)[0]
        assert again["annotation_id"].tolist() == queries["annotation_id"].tolist()

    def test_two_individuals_of_three_photos_give_one_query(self):
        photos = sightings(2, 3, 1)
        queries, known = identify.hold_back(photos, photos, 0)
        assert (len(queries), len(known)) == (1, 5)
        assert set(queries["individual"]) <= set(known["individual"])

    def test_singletons_are_never_held_back(self):
        photos = sightings(5, 1, 1)
        assert identify.hold_back(photos, photos, 0)[0].empty


def test_one_an_encounter_keeps_unknown_encounters():
    photos = sightings(2, 2, 3)
    assert len(identify.one_an_encounter(photos, 0)) == 4
    assert len(identify.one_an_encounter(photos.assign(encounter=""), 0)) == 12
    differ = {tuple(identify.one_an_encounter(photos, s)["annotation_id"]) for s in range(9)}
    assert len(differ) > 1  # drawn at random


class TestInWords:
    def table(self, individuals, queries=40):
        return identify.success(embedded([f"{i % individuals}" for i in range(queries)], 0))

    def test_few_individuals_get_no_interval_but_a_warning(self):
        words = identify.in_words(self.table(2))
        assert "95 % interval" not in words
        assert "2 successes with 2 leave room for 78 % of failures" in words  # 1 - 0.05 ** (1 / 2)

    def test_many_need_no_words(self):
        assert (
            identify.in_words(self.table(12)) == "Each species has 10 tested individuals or more."
        )

    def test_singletons_say_what_is_missing(self):
        words = identify.in_words(self.table(9, 9))
        assert "no individual has two encounters" in words
        assert "nan" not in words


def test_success_is_the_share_of_queries_found():
    tested = embedded(list("aabbcc"), 0)
    vectors = np.eye(6, dtype=np.float32)[[0, 0, 1, 2, 3, 3]]  # b is the one that isn't found
    tested = Embeddings(tested.rows, vectors, "w", "p")
    table = identify.success(tested)
    assert table["top1"][0] == pytest.approx(100 * 4 / 6)
    assert table["top5"][0] == 100  # of three individuals
    assert table["chance1"][0] == pytest.approx(100 / 3)
    assert table["chance5"][0] == pytest.approx(100)
    assert "top1_seen" not in table  # nobody knows what the network learned
    learned = set(tested.rows["individual"][[0, 2]])  # of a and b
    apart = identify.success(tested, learned)
    assert apart[["top1_seen", "top1_new"]].iloc[0].tolist() == pytest.approx([50, 100])
    assert "top5_seen" not in apart


def test_individuals_are_counted_and_not_their_photos():
    tested = embedded(list("aabbb"), 0)
    vectors = np.array([[1, 0], [0.8, 0.6], [1, 0.1], [1, 0.2], [1, 0.3]], np.float32)
    table = identify.success(Embeddings(tested.rows, vectors, "w", "p"))
    assert table["top1"][0] == pytest.approx(100 * 3 / 5)
    assert table["top5"][0] == 100  # three photos of b are one individual
    assert compare({"photos": tested.ranks()}, k=2)["photos"][0] < 100


def test_a_headline_names_the_network_and_the_page(tmp_path):
    table = identify.success(embedded(list("aabbccdd"), 0), {"a", "b"})
    words = identify.headline(table, ROOT / "figures" / "demo" / "review.html")
    assert words.startswith("On average over 1 species, the multi-species network puts the right ")
    assert words.endswith("Decide on the page `figures/demo/review.html`.")
    page = tmp_path / "review.html"
    assert str(page) in identify.headline(table, page, "some.safetensors")
    assert "the network of your weights" in identify.headline(table, page, "some.safetensors")
    assert identify.UNKNOWN in identify.headline(table, page, "some.safetensors")
    (tmp_path / "rows.csv").touch()  # of the run
    assert identify.UNKNOWN not in identify.headline(table, page, str(tmp_path / "w.safetensors"))
    final = identify.headline(table, page, "some.safetensors", identify.FINAL)
    assert "the measured network of your weights" in final
    assert final.endswith("the final network, which was trained on all known photos.")
    assert identify.headline(table.assign(top1=np.nan), page).startswith("No individual")


def test_of_new_animals_no_candidate_can_be_right(photos, tmp_path):
    queries = photos[photos["individual"].isin(["ant/a", "bee/b"])].groupby("individual").head(1)
    known = photos[photos["individual"] != "bee/b"].drop(queries.index[0])
    found = pd.DataFrame(
        {"query": queries["annotation_id"], "match": known["annotation_id"].iloc[0]}
    )
    found = found.assign(individual=known["individual"].iloc[0], score=0.5, rank=1)
    panels = review.panels(found, queries, known, tmp_path, 16)
    captions = [row[0][1].split("\n")[1] for row in panels]
    assert captions == ["query a", "new animal"]


def test_a_known_animal_is_missed_where_too_few_candidates_are_inspected():
    tested = embedded([f"{i % 9}" for i in range(36)], 0)
    table = identify.missed(identify.success(tested))
    means = table.set_index("inspected")["missed"]
    for count in (1, 2, 5, 10):
        hits = 0
        for query, own in zip(tested.rows["annotation_id"], tested.rows["individual"], strict=True):
            vectors = tested.of(tested.rows["annotation_id"] != query)
            of_query = tested.of(tested.rows["annotation_id"] == query)
            found = identify.candidates(vectors, of_query, count)
            hits += own in set(found["individual"])
        assert means[count] == pytest.approx(100 * (1 - hits / 36))
    words = identify.missed_in_words(table)
    assert words.startswith(f"Looking at the first candidate alone misses {means[1]:.0f} % (")
    assert words.endswith("takes more than 20.")
    assert "No photo" in identify.missed_in_words(
        identify.missed(identify.success(tested.of(np.arange(36) < 1)))
    )


def test_photos_needed_are_those_of_a_database_with_so_many_of_each():
    tested = embedded([f"{i % 6}" for i in range(24)], 0)
    table = identify.needed(tested, 0)
    photos = table[table["varied"] == identify.PHOTOS].set_index("number")["top1"]
    assert photos.index.tolist() == [1, 2, 3, 4]
    all_ = compare({"top1": tested.ranks()})["top1"].iloc[-1]
    assert photos[4] == pytest.approx(all_)
    individuals = table[table["varied"] == identify.INDIVIDUALS].set_index("number")["top1"]
    assert individuals[6] == pytest.approx(all_)
    assert individuals[2] > individuals[6]  # of random embeddings
    words = identify.needed_in_words(table)
    assert words.startswith(
        f"With one photo of each individual the right one comes first in {photos[1]:.0f} %"
    )
    none = identify.needed(embedded(list("abc"), 0), 0)
    assert "No individual" in identify.needed_in_words(none)


@pytest.mark.slow
def test_notebook_12_runs_on_two_individuals_with_three_photos_each(tmp_path):
    rng = np.random.default_rng(0)
    for individual, photo in itertools.product("ab", range(3)):
        path = tmp_path / "photos" / "ant" / individual / f"{photo}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(path)
    given = {"catalog": str(tmp_path / "photos"), "figures_dir": str(tmp_path / "figures")}
    given["weights"] = str(tmp_path / "weights.safetensors")
    network = model.MiewIDNet("test_efficientnet")
    model.save(network, model.Preprocess.of(network.name, 64), given["weights"])
    notebook = ROOT / "notebooks" / "12_your_animals.ipynb"
    papermill.execute_notebook(notebook, tmp_path / "out.ipynb", given, progress_bar=False)
    page = (tmp_path / "figures" / "photos" / "review.html").read_text(encoding="utf-8")
    assert "<title>Who is this? · photos, weights.safetensors</title>" in page
