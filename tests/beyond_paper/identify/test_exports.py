"""What leaves a review, read back by the rules of the formats."""

import io
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from miewid_core.beyond_paper.identify import exports, review
from miewid_core.paper.intervals import Estimate
from miewid_core.readers.load import load_catalog


def seen(names, dates, **columns):
    rows = pd.DataFrame({"species": "ant", "individual": list(names)})
    rows = rows.reindex(columns=review.SIGHTING, fill_value="")
    return rows.assign(datetime=pd.to_datetime(dates, format="ISO8601"), **columns)


def catalog_rows(names, dates, **columns):
    """Catalog rows of "ant", an annotation each; a name such as "a/left" has a side."""
    rows = pd.DataFrame({"annotation_id": [f"k{place}" for place in range(len(names))]})
    rows = rows.assign(species="ant", individual=[f"ant/{name}" for name in names])
    rows["name"] = [name.partition("/")[0] for name in names]
    return rows.assign(date=pd.to_datetime(dates), **columns)


class TestSightings:
    decided = pd.DataFrame({"query": list("pqr"), "decision": ["accept", "reject", "new"]}).assign(
        species="ant", individual=["ant/a", "", "Zoë"], date=pd.to_datetime(["2024-01-02"] * 3)
    )
    queries = pd.DataFrame({"annotation_id": list("pqr")})

    def test_rejected_photos_are_none(self):
        rows = catalog_rows(["a"], ["2024-01-01"])
        found = review.sightings(rows, self.queries, self.decided)
        assert found["individual"].tolist() == ["a", "a", "Zoë"]
        assert found["species"].tolist() == ["ant"] * 3

    def test_both_sides_are_one_animal(self):
        rows = catalog_rows(["a/left", "a/right", "b/left"], ["2024-01-01", "2024-01-05", None])
        decided = self.decided.assign(individual=["ant/a/right", "", "ant/b/left"])
        found = review.sightings(rows, self.queries, decided)
        table = exports.capture_histories(found)
        assert table["individual"].tolist() == ["a", "b"]
        assert table["2024-01-02"].tolist() == [1, 1]
        assert table["2024-01-05"].tolist() == [1, 0]

    def test_animals_held_back_keep_their_days(self):
        """One photo of a new animal is reviewed; its others were taken all the same."""
        days = [f"2024-01-{day:02}" for day in range(1, 7)]
        rows = catalog_rows(["a"] * 6, days)
        queries = rows[:1]
        decided = self.decided[2:].assign(query="k0", individual="ant/a", date=rows["date"][0])
        found = review.sightings(rows, queries, decided)
        assert exports.capture_histories(found).shape == (1, 2 + 6)
        undecided = review.sightings(rows, queries, decided[:0])
        assert exports.capture_histories(undecided).shape == (1, 2 + 5)

    def test_a_reviewed_photo_keeps_its_time_unless_its_day_was_changed(self):
        times = pd.to_datetime(["2024-01-02 13:45", "2024-01-02 07:00", "2024-01-03 08:00"])
        rows = catalog_rows(["a"], ["2024-01-01"])
        found = review.sightings(rows, self.queries.assign(date=times), self.decided)
        assert found["datetime"].tolist()[1:] == [times[0], pd.Timestamp("2024-01-02")]

    def test_stations_are_listed_where_given(self):
        rows = catalog_rows(["a", "a", "b"], ["2024-01-01"] * 3, station=["north", "", "south"])
        queries = self.queries.assign(station=["east", "", "west"])
        found = review.sightings(rows, queries, self.decided)
        assert found["station"].tolist() == ["north", "", "south", "east", "west"]


class TestCaptureHistories:
    def test_one_where_an_individual_was_seen(self):
        dates = ["2024-01-05", "2024-01-05 13:00", "2024-01-07", "2024-02-01", None, "2024-03-01"]
        rows = seen(["a", "a", "b", "a", "b", ""], dates)
        daily = exports.capture_histories(rows)
        days = ["2024-01-05", "2024-01-07", "2024-02-01"]
        assert daily.columns.tolist() == ["species", "individual", *days]
        assert daily.to_numpy().tolist() == [["ant", "a", 1, 0, 1], ["ant", "b", 0, 1, 0]]
        monthly = exports.capture_histories(rows, "M")
        assert monthly.columns.tolist()[2:] == ["2024-01", "2024-02"]
        assert monthly.to_numpy().tolist() == [["ant", "a", 1, 1], ["ant", "b", 1, 0]]

    def test_one_name_in_two_species_is_two_animals(self):
        rows = seen("aa", ["2024-01-05", "2024-01-06"]).assign(species=["ant", "bee"])
        table = exports.capture_histories(rows)
        assert table.to_numpy().tolist() == [["ant", "a", 1, 0], ["bee", "a", 0, 1]]

    def test_a_slow_count_agrees(self):
        generator = np.random.default_rng(0)
        days = generator.choice(pd.date_range("2024-01-01", periods=9), 30)
        rows = seen(generator.choice(list("abcd"), 30), days.astype(str))
        table = exports.capture_histories(rows).drop(columns="species").set_index("individual")
        for (name, day), there in table.stack().items():
            rightly = (rows["individual"] == name) & (rows["datetime"] == pd.Timestamp(day))
            assert there == int(rightly.any())

    def test_nothing_dated_gives_no_occasion(self):
        table = exports.capture_histories(seen("a", [None]))
        assert table.columns.tolist() == ["species", "individual"]

    def test_another_occasion_is_refused(self):
        with pytest.raises(ValueError, match="occasion is 'decade'"):
            exports.capture_histories(pd.DataFrame(), "decade")

    def test_a_sampled_occasion_without_sighting_is_a_zero(self, tmp_path):
        occasions = read_occasions(tmp_path, "2024-03-01,2024-03-02\n2024-01-01,2024-01-31")
        rows = seen("abba", ["2024-01-31 23:00", "2024-01-01", "2024-02-15", None])
        table = exports.capture_histories(rows, "Y", occasions)
        days = ["2024-01-01 to 2024-01-31", "2024-03-01 to 2024-03-02"]
        assert table.columns.tolist() == ["species", "individual", *days]
        assert table[days].to_numpy().tolist() == [[1, 0], [1, 0]]
        with pytest.raises(
            ValueError, match=r"line 3: start or end is no date.*; line 2: it ends before"
        ):
            read_occasions(tmp_path, "2024-03-01,2024-02-01\nsoon,2024-01-31")
        with pytest.raises(ValueError, match="line 3: it starts before the one before it has"):
            read_occasions(tmp_path, "2024-03-01,2024-03-09\n2024-03-09,2024-03-10")
        with pytest.raises(ValueError, match="columns start and end"):
            read_occasions(tmp_path, "")
        assert exports.read_occasions("") is None


def read_occasions(folder, lines):
    path = folder / "occasions.csv"
    path.write_text(f"start,end\n{lines}\n" if lines else "begin\nx\n")
    return exports.read_occasions(path)


@pytest.fixture
def placed():
    """Sightings at stations with coordinates; one undated, one between the occasions."""
    dates = ["2024-01-01 08:30", "2024-01-02", "2024-01-02 09:00", "2024-03-01", "2024-02-01", None]
    rows = seen(["a */ 1", "a */ 1", "a */ 1", "b", "b", "b"], dates)
    stations = ["N_1", "N 1", "N 1", "N_1", "N_1", "N_1"]
    places = {"N_1": ("50.0", "10.0"), "N 1": ("50.01", "10.02")}
    rows[["latitude", "longitude"]] = [places[name] for name in stations]
    photos = [f"p{number}" for number in range(6)]
    return rows.assign(station=stations, photo=photos, certainty="probable", reviewer="Zoë")


@pytest.fixture
def occasions(tmp_path):
    return read_occasions(
        tmp_path, "2024-01-01,2024-01-02\n2024-02-10,2024-02-12\n2024-03-01,2024-03-01"
    )


def test_mark_reads_a_history_a_frequency_and_a_semicolon(placed, occasions):
    """Outside its comments /* */, as RMark's convert.inp has it."""
    text = exports.mark(exports.capture_histories(placed, "Y", occasions), "threshold none")["ant"]
    assert "/* ant: 3 occasions (2024-01-01 to 2024-01-02, " in text
    assert "threshold none */" in text
    rows = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL).split(";")
    assert [row.split() for row in rows] == [["100", "1"], ["001", "1"], []]


def test_secr_reads_captures_at_detectors_in_metres(placed, occasions):
    """By whitespace, # for comments; a detector's name has no underscore (secr's datainput)."""
    captures, detectors = (
        [line.split() for line in text.splitlines() if not line.startswith("#")]
        for text in exports.secr(placed, occasions)["ant"]
    )
    assert [len(row) for row in captures] == [4] * len(captures)
    ids, traps = (
        {row[1] for row in captures},
        {row[0]: np.array(row[1:], float) for row in detectors},
    )
    assert len(ids) == len(traps) == 2
    assert not any(set("_,# ") & set(name) for name in [*ids, *traps])
    assert sorted((row[2], row[3] in traps) for row in captures) == [("1", True)] * 2 + [
        ("3", True)
    ]
    one, other = traps.values()
    assert np.hypot(*(one - other)) == pytest.approx(1813, abs=3)  # haversine of the two places
    odd = placed.assign(latitude=["50", "50.01", "50.01", "51", "50", "50"])
    with pytest.raises(ValueError, match="station N_1: give each one latitude"):
        exports.secr(odd, occasions)


REQUIRED = [0, 1, 4, 5, 6, 7]  # fields of Camtrap DP 1.0's observations


def test_camtrap_has_the_fields_of_the_standard(placed):
    table = pd.read_csv(io.StringIO(exports.camtrap(placed).to_csv(index=False)), dtype=str)
    assert len(table.columns) == 28
    assert table.columns[REQUIRED].tolist() == [
        *["observationID", "deploymentID", "eventStart", "eventEnd"],
        *["observationLevel", "observationType"],
    ]
    assert table[table.columns[REQUIRED]].notna().all(axis=None)
    assert table["observationID"].is_unique
    assert table["eventStart"].str.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ").all()
    assert set(table["observationLevel"]) <= {"media", "event"}
    assert set(table["observationType"]) == {"animal"}
    assert set(table["classificationMethod"]) <= {"human", "machine"}
    assert table["mediaID"].tolist() == ["p0", "p1", "p2", "p3", "p4"]
    assert table["observationTags"].tolist() == ["certainty:probable"] * 5
    unused = table.columns[table.isna().all()]
    assert {"sex", "lifeStage", "bboxX", "classificationProbability"} <= set(unused)


class TestSave:
    study = staticmethod(
        lambda folder: SimpleNamespace(figures_dir=folder, note=lambda *names: None)
    )

    def test_all_files_are_derived_from_the_sightings(self, placed, occasions, tmp_path):
        decided, limit = pd.DataFrame({"query": ["q"]}), Estimate(0.5, 0.4, 0.6)
        histories = exports.capture_histories(placed, "Y", occasions)
        given = histories, occasions, decided, pd.DataFrame({"annotation_id": list("qrs")})
        words = exports.save(self.study(tmp_path), placed, *given, {"ant": limit})
        assert words.startswith(
            "2 animals on 3 occasions. 1 sightings have no date. 1 sightings lie"
        )
        names = ["ant.inp", "ant_captures.txt", "ant_detectors.txt", "observations.csv"]
        assert sorted(path.name for path in (tmp_path / "exports").iterdir()) == names
        assert re.search(
            r"threshold ant 0\.500; decisions \w{16}, 2 photos undecided \*/",
            (tmp_path / "exports" / "ant.inp").read_text(),
        )
        long = pd.read_csv(tmp_path / "your_animals_sightings.csv", encoding="utf-8-sig")
        assert long.columns.tolist() == review.SIGHTING

    def test_a_station_without_place_costs_the_file_of_secr_alone(
        self, placed, occasions, tmp_path
    ):
        placed.loc[placed["station"] == "N 1", "latitude"] = ""
        histories = exports.capture_histories(placed, "Y", occasions)
        given = histories, occasions, pd.DataFrame({"query": []}), placed
        words = exports.save(self.study(tmp_path), placed, *given, {})
        assert "No file for secr: station N 1: give each one latitude and one longitude" in words
        names = sorted(path.name for path in (tmp_path / "exports").iterdir())
        assert names == ["ant.inp", "observations.csv"]

    def test_without_occasions_and_stations_it_says_what_is_missing(self, tmp_path):
        rows = seen("ab", ["2024-01-05", None])
        histories = exports.capture_histories(rows)
        given = histories, None, rows[:0], rows
        words = exports.save(self.study(tmp_path), rows, *given, {})
        assert words.startswith("1 animals on 1 occasions. 1 sightings have no date. No file for")
        assert "give `occasions`" in words
        assert "don't model it as a non-detection" in words
        assert words.endswith("the catalog has no column `station`.")
        assert not (tmp_path / "exports").exists()


def test_names_that_secr_would_confuse_stay_different(placed, occasions):
    rows = placed[:3].assign(individual=["a b", "a-b", "a-b-2"])
    captures, _ = exports.secr(rows, occasions)["ant"]
    animals = {line.split()[1] for line in captures.splitlines()[1:]}
    assert len(animals) == 3
    assert not exports.secr(rows.assign(station=""), occasions)
    quoted, _ = exports.secr(rows.assign(individual="O'Malley"), occasions)["ant"]
    assert "'" not in quoted


def test_a_time_in_an_occasion_is_its_day(tmp_path):
    read = read_occasions(tmp_path, "2024-05-01 12:00,2024-05-02 08:00")
    histories = exports.capture_histories(seen("a", ["2024-05-01 07:00"]), occasions=read)
    assert histories["2024-05-01 to 2024-05-02"].tolist() == [1]


def test_stations_of_a_catalog_reach_the_sightings(small_catalog, tmp_path):
    table = pd.read_csv(small_catalog).assign(station="N1", latitude=50, longitude=10.5)
    for name in table["file_name"]:
        (tmp_path / name).write_bytes(small_catalog.with_name(name).read_bytes())
    table.to_csv(tmp_path / "a.csv", index=False)
    rows = load_catalog(tmp_path / "a.csv")
    none = pd.DataFrame(columns=["annotation_id", "decision", "query", "individual", "species"])
    found = review.sightings(rows, none, none)
    assert found[["station", "latitude", "longitude"]].iloc[0].tolist() == ["N1", "50", "10.5"]
    assert (found["method"] == "catalog").all()
