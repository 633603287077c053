"""Photos to identify: the reader's, and known ones held back."""

import itertools

import pandas as pd
import pytest
from PIL import Image

from miewid_core import catalog
from miewid_core.beyond_paper.identify import queries


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
            rows = queries.unidentified(folder, ["ant", "bee"])
        assert list(rows) == catalog.COLUMNS
        species = dict(zip(rows["annotation_id"], rows["species"], strict=True))
        assert species == {"3.png": "", "4.jpg": "", "ant/1.png": "ant", "bee/2.png": "bee"}
        assert (rows["individual"] == "").all()
        assert rows[["x", "y", "w", "h", "theta"]].to_numpy().tolist() == [[0, 0, 20, 10, 0]] * 4
        assert rows["date"].dropna().tolist() == [pd.Timestamp("2024-05-31 12:30")]
        assert [problem["file"] for problem in rows.attrs["dropped"]] == ["5.jpg"]

    def test_the_only_species_is_everyones(self, folder):
        with pytest.warns(catalog.CatalogWarning):
            assert set(queries.unidentified(folder, ["ant"])["species"]) == {"ant"}

    def test_a_table_gives_boxes_and_dates(self, folder):
        table = "file_name,x,y,w,h,theta,date,annotation_id\n"
        table += (
            "3.png,1,2,3,4,0.5,2024-01-01,\n3.png,5,2,3,4,,,\n3.png,,,,,,,own\n3.png,1,2,0,4,,,\n"
        )
        (folder / "t.csv").write_text(table)
        with pytest.warns(catalog.CatalogWarning, match="box 1, 2, 0, 4 is empty"):
            rows = queries.unidentified(folder / "t.csv", ["ant"])
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
            rows = queries.unidentified(folder / "t.csv", ["ant"])
        assert rows[["x", "y", "w", "h"]].to_numpy().tolist() == [[1, 2, 3, 4]]
        (dropped,) = rows.attrs["dropped"]
        assert problem in dropped["problem"]
        assert dropped["row"] == "line 2"

    def test_dates_are_read_as_a_catalogs(self, folder):
        written = ["2024-01-01T20:30:00-05:00", "2024-07-01T20:30:00+02:00", "2024-05-31"]
        table = "".join(f"3.png,{date}\n" for date in written)
        (folder / "t.csv").write_text(f"file_name,date\n{table}")
        rows = queries.unidentified(folder / "t.csv", ["ant"])
        expected = ["2024-01-01 20:30", "2024-07-01 20:30", "2024-05-31"]
        assert rows["date"].tolist() == list(map(pd.Timestamp, expected))


def test_a_camera_without_a_clock_gives_no_date(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "0000:00:00 00:00:00"
    Image.new("L", (9, 9)).save(tmp_path / "x.jpg", exif=exif)
    photos = pd.DataFrame({"path": [str(tmp_path / "x.jpg")], "date": pd.to_datetime([None])})
    assert queries.with_dates(photos)["date"].isna().all()


def sightings(individuals=12, encounters=3, frames=2):
    rows = [
        {"annotation_id": f"{i:02}{e}{f}", "individual": f"ant/{i:02}", "encounter": f"{i}-{e}"}
        for i, e, f in itertools.product(range(individuals), range(encounters), range(frames))
    ]
    return pd.DataFrame(rows).assign(species="ant")


class TestHoldBack:
    def test_new_ones_are_gone_and_others_keep_other_encounters(self):
        photos = sightings()
        tested = queries.one_an_encounter(photos, 0)
        asked, known = queries.hold_back(photos, tested, 0)
        assert len(asked) == 3
        there = asked["individual"].isin(known["individual"])
        assert there.tolist() == [True, True, False]
        assert not set(asked["encounter"]) & set(known["encounter"])
        new = asked["individual"][2]
        assert len(known) == len(photos) - 6 - 2 * 2
        assert new not in set(known["individual"])
        again = queries.hold_back(photos.sample(frac=1, random_state=1), tested, 0)[0]
        assert again["annotation_id"].tolist() == asked["annotation_id"].tolist()

    def test_two_individuals_of_three_photos_give_one_query(self):
        photos = sightings(2, 3, 1)
        asked, known = queries.hold_back(photos, photos, 0)
        assert (len(asked), len(known)) == (1, 5)
        assert set(asked["individual"]) <= set(known["individual"])

    def test_singletons_are_never_held_back(self):
        photos = sightings(5, 1, 1)
        assert queries.hold_back(photos, photos, 0)[0].empty


def test_one_an_encounter_keeps_unknown_encounters():
    photos = sightings(2, 2, 3)
    assert len(queries.one_an_encounter(photos, 0)) == 4
    assert len(queries.one_an_encounter(photos.assign(encounter=""), 0)) == 12
    differ = {tuple(queries.one_an_encounter(photos, s)["annotation_id"]) for s in range(9)}
    assert len(differ) > 1  # drawn at random
