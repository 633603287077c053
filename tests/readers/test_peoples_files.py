"""What people's files are really like: the right value comes out, and a notice tells of it."""

import json
import os
import re
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from miewid_core import catalog, photos
from miewid_core.beyond_paper import identify
from miewid_core.beyond_paper.identify import review
from miewid_core.beyond_paper.identify.queries import unidentified
from miewid_core.readers import checks
from miewid_core.readers.load import NUMBERED, load_catalog, read_dates
from tests.readers.made import as_coco, boxes, draw, some_rows

pytestmark = pytest.mark.usefixtures("nothing_remembered")


@pytest.fixture(scope="module")
def folder(folder):
    """With a photo that lies on its side."""
    draw(folder / "turned.jpg", orientation=6, seed=99)  # 40 x 30 as stored, upright 30 x 40
    return folder


def load(folder, rows, **options):
    rows.to_csv(folder / "a.csv", index=False)
    loaded = load_catalog(folder / "a.csv", **options)
    return loaded, catalog.notices(loaded)


def changed(**cells):
    """The good rows with line 3 changed."""
    rows = some_rows().astype(object)
    rows.loc[1, list(cells)] = list(cells.values())
    return rows


MENDED = {  # what is written over line 3: what comes out there, and what is told
    "theta empty": ({"theta": ""}, {"theta": 0.0}, "rotation ''"),
    "theta NaN": ({"theta": "NaN"}, {"theta": 0.0}, "theta 'NaN'"),
    "theta infinite": ({"theta": "-inf"}, {"theta": 0.0}, "rotation '-inf'"),
    "theta in words": ({"theta": "left"}, {"theta": 0.0}, "rotation 'left'"),
    "date zero": ({"date": "0"}, {"date": pd.NaT}, "date 0 can't be read"),
    "date None": ({"date": "None"}, {"date": pd.NaT}, "date 'None'"),
    "box over the right": ({"x": "14"}, {"x": 14.0, "w": 26.0}, "over the photo's edge"),
    "box over the left": ({"x": "-5"}, {"x": 0.0, "w": 25.0}, "over the photo's edge"),
    "box over the top": ({"y": "-5"}, {"y": 0.0, "h": 15.0}, "over the photo's edge"),
    "box over all": (
        {"x": "-3", "y": "-2", "w": "46", "h": "34"},
        {"x": 0.0, "y": 0.0, "w": 40.0, "h": 30.0},
        "over the photo's edge",
    ),
    "box of zeros": (
        {"x": "0", "y": "0.0", "w": "0", "h": "0"},
        {"x": 0.0, "y": 0.0, "w": 40.0, "h": 30.0},
        "box 0, 0, 0, 0",
    ),
    "encounter of Wildbook": ({"encounter": "Unassigned"}, {"encounter": ""}, "'Unassigned'"),
    "encounter of a database": ({"encounter": "\\N"}, {"encounter": ""}, "encounter '"),
    "viewpoint of a broken formula": ({"viewpoint": "#REF!"}, {"viewpoint": ""}, "'#REF!'"),
    "encounter nan": ({"encounter": "nan"}, {"encounter": ""}, "encounter 'nan'"),
    "encounter N/A": ({"encounter": " N/A "}, {"encounter": ""}, "encounter 'N/A'"),
    "viewpoint NULL": ({"viewpoint": "NULL"}, {"viewpoint": ""}, "viewpoint 'NULL'"),
    "name in capitals": ({"name": "ZOË"}, {"name": "ZOË"}, "'Zoë' is much like 'ZOË'"),
    "name without accent": ({"name": "zoe"}, {"name": "zoe"}, "is much like 'zoe'"),
    "name without zeros": ({"name": "7"}, {"name": "7"}, "name '7' is much like '007'"),
    "name of a float": ({"name": "7.0"}, {"name": "7.0"}, "name '7.0' is much like '007'"),
}


@pytest.mark.parametrize(("cells", "right", "told"), MENDED.values(), ids=MENDED)
def test_a_detail_costs_no_photo(folder, cells, right, told):
    loaded, notices = load(folder, changed(**cells))
    assert len(loaded) == 8
    found = loaded.loc[1, list(right)].tolist()
    pairs = zip(found, right.values(), strict=True)
    assert all(one == other or (pd.isna(one) and pd.isna(other)) for one, other in pairs)
    assert notices["what"].str.contains(told, regex=False).any()
    assert (notices[["row", "done"]] != "").all(axis=None)
    untouched, none = load(folder, some_rows())
    others = loaded.drop(1)[catalog.COLUMNS[1:]]
    pd.testing.assert_frame_equal(others, untouched.drop(1)[catalog.COLUMNS[1:]])
    assert none.empty


DATES = {
    **dict.fromkeys(["2019:05:03 10:11:12", "2019:05:03 10:11:12\0"], "2019-05-03 10:11:12"),
    **{"2019:05:03 10:11:12+02:00": "2019-05-03 10:11:12", "2019:05:03": "2019-05-03"},
    **{"2019:05:03 10:11:12.50": "2019-05-03 10:11:12.5"},
    **{"2019-05-03T10:11Z": "2019-05-03 10:11", "5/31/2019 1:05 PM": "2019-05-31 13:05"},
    **{"2019/05/03": "2019-05-03", "2019-5-3": "2019-05-03", "20190503.0": "2019-05-03"},
    **{"03.05.2019": "2019-05-03", "31/05/2019": "2019-05-31", "2019-05-03": "2019-05-03"},
    **{"2019-05-03T19:30:00-05:00": "2019-05-03 19:30"},  # the next day in Greenwich
    **{"20190503T003000+0200": "2019-05-03 00:30", "2019-05-03 00:30:00+02": "2019-05-03 00:30"},
    **{"05/05/2019": "2019-05-05", "May 3, 2019": "2019-05-03", "3-May-2019": "2019-05-03"},
    **{"Fri May 03 2019 10:11:12 GMT+0200 (CEST)": "2019-05-03 10:11:12"},
    **{"Fri, 03 May 2019 10:11:12 GMT": "2019-05-03 10:11:12"},
    **dict.fromkeys(["2019", "2019.0", "2019-05", "May 2019", "0000-00-00", "1556841600", "24:00"]),
    **dict.fromkeys(["2019-05-03 24:10:12", "03/05/2019", "03.05.19", "2019-W18-5", "03-May-19"]),
    **dict.fromkeys(["2024-05-31 25:00", "2024-02-30", "never", "now", "today", "45413", "-1"]),
    **dict.fromkeys(["0000:00:00 00:00:00", "0001-01-01", "9999-12-31"]),
    **dict.fromkeys(["1899-12-30", "1980:01:01 00:00:00", "1970-01-01"]),  # as programs write none
}


@pytest.mark.parametrize(("written", "day"), DATES.items(), ids=ascii)
def test_dates_are_read_or_left_out_with_a_notice(written, day):
    table = read_dates(pd.Series([written, "2024-01-01", ""], dtype=object))
    assert table["date"].dtype == "datetime64[us]"
    found, other, none = table.itertuples()
    assert found.date is pd.NaT if day is None else found.date == pd.Timestamp(day)
    assert (found.what == "") == (day is not None)
    assert (other.date, other.what, none.what) == (pd.Timestamp("2024-01-01"), "", "")


ORDERS = [("31/05/2019", "2019-05-03"), ("5/31/2019", "2019-03-05")]


@pytest.mark.parametrize(("other", "day"), ORDERS)
def test_the_order_of_day_and_month_is_that_of_the_column(other, day):
    found = read_dates(pd.Series(["03/05/2019", other, ""]))
    assert found["date"].tolist()[0] == pd.Timestamp(day)
    assert other in found["done"].iloc[0]
    mixed = read_dates(pd.Series(["03/05/2019", "31/05/2019", "5/31/2019"]))
    assert mixed["date"].isna().tolist() == [True, False, False]


NONE = ["nan", "None", "NULL", "n/a", "<NA>", "unknown", "____", "-", "", "Unassigned", "Not known"]


@pytest.mark.parametrize("word", NONE)
def test_rows_without_a_name_are_left_out_with_one_notice_and_a_count(folder, word):
    rows = pd.concat([some_rows(), some_rows().assign(x="3", name=word, species="")])
    loaded, notices = load(folder, rows)
    assert len(loaded) == 8
    assert set(loaded["name"]) == {"007", "Zoë"}
    nameless = notices[notices["what"] == "no name"]
    assert nameless["row"].tolist() == ["line 10 and 7 more"]


def test_the_rows_without_a_name_can_be_the_unidentified(folder):
    rows = pd.concat([some_rows(), some_rows().assign(x="3", name="unknown")])
    loaded, _ = load(folder, rows)
    queries, known = identify.to_identify(loaded, loaded, str(folder / "a.csv"), 0)
    assert len(known) == len(queries) == 8
    assert (queries["x"] == 3).all()
    assert (queries["individual"] == "").all()
    assert queries["species"].tolist() == known["species"].tolist()


def frame(folder, **columns):
    rows = some_rows()
    table = pd.DataFrame({"path": rows["file_path"], "identity": rows["name"]})
    table = table.assign(species=rows["species"], bbox=boxes(rows), **columns)
    return SimpleNamespace(df=table, root=folder)


def test_a_frames_rotation_is_used(folder):
    assert load_catalog(frame(folder, bbox_theta=0.25))["theta"].tolist() == [0.25] * 8
    assert load_catalog(frame(folder, bbox_theta=np.nan))["theta"].tolist() == [0] * 8


def test_a_frame_without_species_takes_one_as_a_parameter(folder):
    half = frame(folder)
    half.df = half.df.drop(columns="species")
    half.df.loc[5:, "identity"] = [np.nan, "unknown", None]
    with pytest.raises(catalog.CatalogError, match=r"no column species; .*as a parameter, species"):
        load_catalog(half)
    loaded = load_catalog(half, species="whale")
    assert loaded["individual"].tolist() == ["whale/007"] * 2 + ["whale/Zoë"] * 2 + ["whale/007"]
    assert catalog.notices(loaded)["what"].tolist() == ["name 'unknown'", "no name"]


def turned(box, **columns):
    """Rows of photos that lie on their side, and one upright."""
    rows = some_rows().assign(file_path=["turned.jpg"] * 7 + ["bee/Zoë/2.jpg"], **columns)
    rows["name"] = [f"n{number // 2}" for number in range(8)]
    rows[["x", "y", "w", "h"]] = [box] + [(0, number, 5, 5) for number in range(7)]
    return rows


def test_a_box_of_the_stored_photo_is_a_contradiction_and_so_are_its_like(folder):
    with pytest.raises(catalog.CatalogError, match="as it is stored, not of the upright") as told:
        load(folder, turned((10, 5, 28, 20)))
    assert told.value.problems["row"].tolist() == [f"line {line}" for line in range(2, 9)]
    assert len(load(folder, turned((2, 10, 25, 28)))[0]) == 8  # upright only: so are the others


def sized(folder, rows, size, **others):
    """A COCO export of rows, in which each photo has `size`, but for `others` by their stem."""
    coco = as_coco(rows, "wildbook")
    for image in coco["images"]:
        image["width"], image["height"] = others.get(image["file_name"].split(".")[0], size)
    (folder / "a.json").write_text(json.dumps(coco))
    return folder / "a.json"


@pytest.mark.parametrize("size", [(30, 40), (0, 0), (None, None), (300, 400)])
def test_a_size_that_contradicts_the_photo_is_told_by_row(folder, size):
    source = sized(folder, turned((2, 3, 25, 20)), (40, 30), turned=size)
    if size == (300, 400):
        with pytest.raises(catalog.CatalogError, match="as it is stored") as told:
            load_catalog(source)
        assert told.value.problems["row"].tolist() == [f"annotation a{n}" for n in range(7)]
    else:
        assert len(load_catalog(source)) == 8


@pytest.mark.parametrize("square", [False, True])
def test_boxes_of_photos_as_stored_are_turned_upright_with_them(tmp_path, square):
    rows = some_rows()
    rows["file_path"] = [f"exif{place}.jpg" for place in range(1, 9)]
    x, y, w, h = 3, 5, 20, 12
    rows[["x", "y", "w", "h"]] = x, y, w, h
    width, height = 40, 40 if square else 30
    for place in range(1, 9):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[y : y + h, x : x + w] = 255
        exif = Image.Exif()
        exif[0x0112] = place
        Image.fromarray(pixels).save(tmp_path / f"exif{place}.jpg", exif=exif, quality=100)
    if square:  # these alone say nothing
        draw(tmp_path / "exif8.jpg", orientation=8, seed=1)
    loaded = load_catalog(sized(tmp_path, rows, (width, height), exif8=(40, 30)))
    for row in loaded[: 7 if square else 8].itertuples():
        photo = photos.read_photo(row.path)
        cut = photos.crop(photo, (row.x, row.y, row.w, row.h))
        assert cut.min() > 200
        assert (photo > 200).all(axis=2).sum() == cut.shape[0] * cut.shape[1] == w * h
    (told,) = catalog.notices(loaded).to_dict("records")
    assert told == {
        "row": "annotation a1 and 6 more",
        "what": "the box is of the photo as it is stored",
        "done": "turned with it (EXIF)",
    }


def test_a_box_is_not_turned_where_another_shows_that_they_are_upright(folder):
    rows = turned((2, 3, 25, 20))
    rows.loc[3, ["y", "h"]] = 3, 36  # only the upright photo is so high
    with pytest.raises(catalog.CatalogError, match="as it is stored") as told:
        load_catalog(sized(folder, rows, (40, 30)))
    assert told.value.problems["row"].tolist() == [f"annotation a{n}" for n in (0, 1, 2, 4, 5, 6)]


def test_a_rotated_box_of_the_stored_photo_is_told(folder):
    source = sized(folder, turned((2, 3, 25, 20)), (40, 30))
    coco = json.loads(source.read_text())
    coco["annotations"][2]["theta"] = 0.5
    source.write_text(json.dumps(coco))
    with pytest.raises(catalog.CatalogError, match="as it is stored") as told:
        load_catalog(source)
    assert told.value.problems["row"].tolist() == ["annotation a2"]


BOXES = {  # how a table has a box, and whether it is one
    **dict.fromkeys(["[1, 2, 30, 20]", "(1.0, 2, 30, 20)", "[ 1.  2. 30. 20.]", "1 2 30 20"], True),
    **dict.fromkeys(["[]", "", "None", "[nan, nan, nan, nan]", "[nan nan nan nan]"], False),
}


@pytest.mark.parametrize(("text", "is_box"), BOXES.items())
def test_boxes_as_lists_and_arrays_are_written(folder, text, is_box):
    rows = some_rows().drop(columns=["x", "y", "w", "h"]).assign(bbox=text)
    loaded, _ = load(folder, rows)
    assert (loaded[catalog.BOX] == ([1, 2, 30, 20] if is_box else [0, 0, 40, 30])).all(axis=None)


def test_a_column_of_degrees_is_refused_as_a_whole(folder):
    rows = some_rows().assign(theta=["3", "90", "-45", "170", "0", "1", "2", "30"])
    with pytest.raises(catalog.CatalogError, match="give radians") as told:
        load(folder, rows)
    assert told.value.problems["row"].tolist() == [f"line {n}" for n in (2, 3, 4, 5, 7, 8, 9)]


def test_boxes_of_corners_are_not_cut(folder):
    rows = some_rows().astype(object)
    rows.loc[[0, 1], ["x", "y", "w", "h"]] = [["20", "15", "38", "28"], ["8", "2", "34", "28"]]
    with pytest.raises(catalog.CatalogError, match="width, height") as told:
        load(folder, rows)
    assert told.value.problems["row"].tolist() == ["line 2", "line 3"]


ALIKE = {
    "capitals": ("hill_fox", "Hill_Fox"),
    "spaces": ("hill_fox", "hill fox"),
    "a letter": ("river_otter", "river_oter"),
    "another letter": ("river_otter", "river_ottar"),
    "swapped": ("river_otter", "river_ottre"),
}


@pytest.mark.parametrize(("one", "other"), ALIKE.values(), ids=ALIKE)
def test_species_that_may_be_one_are_pointed_out_and_kept(folder, one, other):
    rows = some_rows().assign(species=[one] * 4 + [other] * 4)
    loaded, notices = load(folder, rows)
    assert loaded["species"].nunique() == 2
    assert notices["what"].tolist() == [f"species {other!r} is much like {one!r}"]


DIFFERENT = [
    ("whale_1", "whale_2"),
    ("ant", "ants"),
    ("zebra_plains", "zebra_grevys"),
    ("1-0", "1"),
]


@pytest.mark.parametrize("pair", DIFFERENT)
def test_labels_that_differ_are_not_pointed_out(folder, pair):
    one, other = pair
    assert load(folder, some_rows().assign(species=[one] * 4 + [other] * 4))[1].empty
    assert load(folder, some_rows().assign(name=[one, one, other, other] * 2))[1].empty


def herd(folder, **columns):
    """Two species of three animals in four visits each, each visit a photo."""
    rows = [(s, f"{s}{n}", v) for s in ("ant", "bee") for n in range(3) for v in range(4)]
    table = pd.DataFrame(rows, columns=["species", "name", "encounter"])
    table["file_path"], table["x"] = "ant/007/1.jpg", range(24)
    table["file_path"] = [some_rows()["file_path"][place % 8] for place in range(24)]
    table = table.assign(y=0, w=5, h=5, **columns)
    return load(folder, table)


DAYS = [f"2021-01-{1 + place:02}" for place in range(24)]
FEW = [f"v{place}" for place in range(12)] + ["h1", "h1"] * 3 + ["h2"] * 6
HERDS = {  # columns of `herd`: how many encounters there are, and rows of the notices
    "visits numbered for each animal": ({}, 24, ["encounter 0 and 3 more"]),
    "a herd of one date": ({"date": DAYS[:4] * 6}, 4, []),
    "few shared ones without dates": ({"encounter": FEW, "species": "ant"}, 14, []),
    "few visits of other dates": (
        {"date": DAYS, "encounter": ["v", *DAYS[1:4], "v", *DAYS[5:]]},
        24,
        ["encounter v"],
    ),
}


@pytest.mark.parametrize(("columns", "count", "told"), HERDS.values(), ids=HERDS)
def test_shared_encounters_are_a_herds_or_each_animals_own(folder, columns, count, told):
    loaded, notices = herd(folder, **columns)
    assert loaded["encounter"].nunique() == count
    assert notices["row"].tolist() == told
    assert set(notices["done"]) == ({"counted per individual"} if told else set())
    assert (loaded["encounter"][0] == "ant/ant0: 0") == (not columns)


def test_a_herd_on_one_photo_keeps_its_encounter(folder):
    table = some_rows().assign(encounter="herd", name=list("aabbaabb"))
    table["file_path"] = ["ant/007/1.jpg", "ant/007/2.jpg"] * 4
    table["x"] = range(8)
    table.loc[[1, 3, 5, 7], "encounter"] = "second"
    loaded, notices = load(folder, table.drop(columns="date"))
    assert loaded["encounter"].tolist() == ["herd", "second"] * 4
    assert notices.empty


def test_a_burst_of_files_is_a_herds_where_files_times_tell_something(folder, tmp_path):
    rows = some_rows().drop(columns="date").assign(encounter=list("pqpqrsrs"))
    for place, file in enumerate(rows["file_path"]):
        draw(tmp_path / file, seed=place)
        hour = {"p": 0, "q": 100, "r": 200, "s": 300}[rows["encounter"][place]]
        os.utime(tmp_path / file, (1e9, 1e9 + 3600 * hour + 5 * place))
    assert load(tmp_path, rows)[0]["encounter"].tolist() == list("pqpqrsrs")
    for file in rows["file_path"]:
        os.utime(tmp_path / file, (1e9, 1e9))  # as a copy has them
    assert load(tmp_path, rows)[0]["encounter"].nunique() == 8


def test_viewpoints_are_two_sides_where_sides_differ(folder):
    views = ["left", "frontleft", "right", "backright"] * 2 + ["front", "up"]
    rows = pd.concat([some_rows(), some_rows().head(2).assign(x="3")], ignore_index=True)
    rows = rows.assign(viewpoint=views, name=["007", "007", "007", "007", *rows["name"][4:]])
    loaded, notices = load(folder, rows, sides_differ=["ant"])
    ants = loaded[loaded["species"] == "ant"]
    assert ants["individual"].tolist() == ["ant/007/left"] * 2 + ["ant/007/right"] * 2
    told = [f"viewpoint {view} is of neither side" for view in views[8:]]
    assert notices["what"].tolist() == told
    assert len(load(folder, rows)[0]) == 10


def test_the_same_bytes_under_two_animals_are_told(folder):
    shutil.copy(folder / "ant/007/1.jpg", folder / "copy.jpg")
    loaded, notices = load(folder, changed(file_path="copy.jpg", name="Zoë"))
    assert len(loaded) == 8
    assert notices[["row", "what"]].to_numpy().tolist() == [
        ["line 3", "the same photo as line 2, of another animal"]
    ]
    same = load(folder, changed(file_path="copy.jpg"))[1]  # of the same animal
    assert same[["row", "what"]].to_numpy().tolist() == [["line 3", "the same photo as line 2"]]
    assert load(folder, changed(file_path="copy.jpg", name="Zoë", x="2"))[1].empty  # of another box


def test_a_copy_of_a_photo_of_two_animals_is_told_of_both(folder):
    rows = pd.concat([some_rows(), some_rows()[:2].assign(name="Zoë", x="7")], ignore_index=True)
    shutil.copy(folder / "ant/007/1.jpg", folder / "copy.jpg")
    rows.loc[9, "file_path"] = "copy.jpg"
    rows.loc[10] = rows.loc[9].replace({"Zoë": "007", "7": "1"})
    _, notices = load(folder, rows)
    assert notices[["row", "what"]].to_numpy().tolist() == [
        ["line 11", "the same photo as line 10"],
        ["line 12", "the same photo as line 2"],
    ]


def test_a_known_photo_among_the_unidentified_is_told(folder, tmp_path):
    known, _ = load(folder, some_rows())
    shutil.copy(folder / "bee/Zoë/2.jpg", tmp_path / "new.jpg")
    draw(tmp_path / "other.jpg", seed=77)
    queries, _ = identify.to_identify(known, known, str(tmp_path), 0)
    words = "the same photo as a known one of bee/Zoë"
    assert catalog.notices(queries)[["row", "what"]].to_numpy().tolist() == [
        ["query new.jpg", words]
    ]
    match = {"query": "new.jpg", "rank": 1, "individual": "bee/Zoë", "score": 1.0}
    found = pd.DataFrame([match | {"match": known["annotation_id"].iloc[-1]}])
    review.save_page(found, queries, known, tmp_path / "a.html", "Who?", {"new.jpg": "sure"})
    data = re.search(r"id=\"data\">(.*?)</script>", (tmp_path / "a.html").read_text())[1]
    assert [card["note"] for card in json.loads(data)["cards"]] == [f"{words}; sure", ""]


def test_another_animal_on_a_known_photo_is_no_copy_of_it(folder):
    rows = pd.concat([some_rows(), some_rows().assign(x="3", name="")], ignore_index=True)
    rows.loc[11, "file_path"] = "copy of Zoë.jpg"
    shutil.copy(folder / "ant/Zoë/2.jpg", folder / "copy of Zoë.jpg")
    known, _ = load(folder, rows)
    queries, _ = identify.to_identify(known, known, str(folder / "a.csv"), 0)
    notes = ["", "", "", "the same photo as a known one of ant/Zoë", "", "", "", ""]
    assert queries["note"].tolist() == notes


def test_photos_held_back_are_not_told_of_what_is_noticed_in_the_catalog(folder):
    known, told = load(folder, changed(theta="left"))
    assert len(told) == 1
    queries, _ = identify.to_identify(known, known, "", 0)
    assert catalog.notices(queries).empty


def tree(folder, files):
    for place, file in enumerate(files):
        draw(folder / file, seed=place)


TREE = [f"{s}/{n}/{p}.jpg" for s in ("ant", "bee") for n in ("a", "b") for p in (1, 2)]


def test_a_raw_file_is_reported_unless_a_photo_of_its_name_lies_beside_it(tmp_path):
    tree(tmp_path, TREE)
    for file in ("ant/a/1.NEF", "ant/b/9.NEF", "bee/a/1.MP4"):
        (tmp_path / file).write_bytes(b"II*\0")
    with pytest.raises(catalog.CatalogError, match=r"ant/b/9\.NEF: a camera's raw") as told:
        load_catalog(tmp_path)
    assert len(told.value.problems) == 1


def test_a_raw_file_in_a_table_is_no_photo_though_pillow_opens_its_preview(folder):
    Image.new("RGB", (40, 30)).save(folder / "raw.tif")
    (folder / "raw.tif").rename(folder / "raw.NEF")
    with pytest.raises(catalog.CatalogError, match=r"raw\.NEF: a camera's raw file; export it"):
        load(folder, changed(file_path="raw.NEF"))


def test_what_systems_leave_in_folders_is_passed_over(tmp_path):
    tree(tmp_path, TREE)
    for file in ("a/._1.jpg", "a/.thumbs/1.jpg", "a/@eaDir/1.jpg", "__MACOSX/ant/a/1.jpg"):
        file = f"ant/{file}" if file[0] == "a" else file
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"\0\5\x16\7")
    loaded = load_catalog(tmp_path)
    assert len(loaded) == 8
    told = catalog.notices(loaded)["what"].tolist()
    assert told == ["a file that macOS leaves beside others (._)"]
    rows = pd.DataFrame([file.split("/")[:2] for file in TREE], columns=["species", "name"])
    rows["file_path"] = TREE
    rows.loc[8] = ["ant", "a", "ant/a/._1.jpg"]
    assert len(load(tmp_path, rows)[0]) == 8


def test_links_to_a_store_elsewhere_are_followed(tmp_path):
    store, here = tmp_path / "store", tmp_path / "here"
    tree(store, TREE)
    (here / "ant").mkdir(parents=True)
    (here / "bee").symlink_to(store / "bee")  # a folder, as DVC links it
    (here / "ant/a").symlink_to(store / "ant/a")
    (here / "ant/b").mkdir()
    for name in ("1.jpg", "2.jpg"):  # files, as the hub's cache and DataLad link them
        (here / "ant/b" / name).symlink_to(store / "ant/b" / name)
    (here / "ant/b/loop").symlink_to(here)
    loaded = load_catalog(here)
    assert loaded["individual"].tolist() == [f"{f[:3]}/{f[4]}" for f in TREE]
    assert loaded["path"].str.startswith(str(here)).all()


def test_paths_that_climb_are_refused_through_links_too(tmp_path):
    tree(tmp_path / "here", TREE)
    tree(tmp_path, ["secret.jpg"])
    (tmp_path / "here/link").symlink_to(tmp_path)
    rows = pd.DataFrame([file.split("/")[:2] for file in TREE], columns=["species", "name"])
    rows["file_path"] = ["../secret.jpg", *TREE[1:]]
    with pytest.raises(catalog.CatalogError, match="path leaves the catalog's folder"):
        load(tmp_path / "here", rows)


def test_wild_mes_layout_is_found_from_the_json_and_from_the_folder(tmp_path):
    rows = some_rows()
    rows["file_path"] = [f"{place:012}.jpg" for place in range(8)]
    tree(tmp_path / "x.coco/images/train2020", rows["file_path"])
    table = tmp_path / "x.coco/annotations/instances_train2020.json"
    table.parent.mkdir()
    table.write_text(json.dumps(as_coco(rows, "wildbook")))
    loaded = load_catalog(table)
    assert loaded["individual"].nunique() == 4
    assert "images/train2020" in loaded["path"].iloc[0]
    (told,) = catalog.notices(loaded)["what"]
    assert told == f"the photos aren't in {table.parent}"
    with pytest.raises(ValueError, match=r"give its table of photos, not the folder: .*train2020"):
        load_catalog(tmp_path / "x.coco")


def test_photos_elsewhere_are_named_by_a_parameter(folder, tmp_path):
    some_rows().to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(catalog.CatalogError, match="or give photos_dir"):
        load_catalog(tmp_path / "a.csv")
    assert len(load_catalog(tmp_path / "a.csv", photos_dir=folder)) == 8
    with pytest.raises(ValueError, match="photos_dir is gone, but there is no folder /"):
        load_catalog(tmp_path / "a.csv", photos_dir="gone")


def test_a_folder_of_photos_has_them_itself(folder, tmp_path):
    tree(tmp_path, TREE)
    with pytest.raises(ValueError, match=r"photos_dir is .*, but .* is a folder of photos itself"):
        load_catalog(tmp_path, photos_dir=folder)


@pytest.mark.parametrize("place", ["photos_dir", "beside", "a folder"])
def test_the_unidentified_lie_where_the_known_ones_do_or_beside_their_table(
    folder, tmp_path, place
):
    known, _ = load(folder, some_rows())
    draw(tmp_path / "new.jpg", seed=77)
    file = "bee/Zoë/2.jpg" if place == "photos_dir" else "new.jpg"
    pd.DataFrame({"file_name": [file]}).to_csv(tmp_path / "new.csv", index=False)
    source = tmp_path if place == "a folder" else tmp_path / "new.csv"
    queries, _ = identify.to_identify(known, known, str(source), 0, photos_dir=str(folder))
    where = folder if place == "photos_dir" else tmp_path
    assert queries["path"].tolist() == [str(where / file)]


def test_the_unidentified_have_the_species_of_the_parameter_where_they_have_none(folder, tmp_path):
    tree(tmp_path, ["1.jpg", "bee/1.jpg", "may/1.jpg"])
    queries = unidentified(tmp_path, ["ant", "bee"], species="ant")
    assert queries["species"].tolist() == ["ant", "bee", "ant"]


@pytest.mark.parametrize("root", ["/home/who/data/", "C:\\who\\data\\", "D:/data/"])
def test_absolute_paths_of_another_computer_are_found_below_the_folder(folder, root):
    rows = some_rows()
    slash = "\\" if "\\" in root else "/"
    rows["file_path"] = root + rows["file_path"].str.replace("/", slash)
    loaded, notices = load(folder, rows)
    expected, _ = load(folder, some_rows())
    pd.testing.assert_frame_equal(loaded, expected)
    assert notices["what"].tolist() == ["path of another computer"]


def test_paths_as_windows_writes_them_are_read(folder):
    rows = some_rows()
    rows["file_path"] = rows["file_path"].str.replace("/", "\\")
    loaded, notices = load(folder, rows)
    pd.testing.assert_frame_equal(loaded, load(folder, some_rows())[0])
    assert notices["row"].tolist() == ["line 2 and 7 more"]
    draw(folder / "ant/a\\b.jpg", seed=50)  # a name that has one
    loaded, notices = load(folder, changed(file_path="ant/a\\b.jpg"))
    assert loaded["path"].iloc[1] == f"{folder}/ant/a\\b.jpg"
    assert notices.empty


@pytest.mark.parametrize("kind", ["a link without its target", "a pointer"])
def test_photos_that_are_kept_elsewhere_are_to_be_fetched(folder, tmp_path, kind):
    tree(tmp_path, TREE)
    (tmp_path / "ant/a/1.jpg").unlink()
    if kind == "a pointer":
        text = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
        (tmp_path / "ant/a/1.jpg").write_text(text)
    else:
        (tmp_path / "ant/a/1.jpg").symlink_to("../../.git/annex/objects/aa/bb/1.jpg")
    with pytest.raises(catalog.CatalogError, match=r"ant/a/1.jpg: .*; fetch it .*: git lfs pull"):
        load_catalog(tmp_path)


def test_a_species_for_rows_that_all_have_one_is_refused(folder):
    with pytest.raises(catalog.CatalogError, match="species is cow, but no row is without one"):
        load(folder, some_rows(), species="cow")
    assert len(load(folder, some_rows().assign(species="ant"), species="ant")[0]) == 8


def test_whole_numbers_that_a_frame_or_json_made_fractions_stay_whole(folder):
    half = frame(folder)
    half.df["identity"] = [7.0, 7.0, 8.0, 8.0, np.nan, 7.0, 7.0, np.nan]
    assert load_catalog(half)["name"].tolist() == ["7", "7", "8", "8", "7", "7"]
    coco = as_coco(some_rows(), "wildbook")
    for place, entry in enumerate(coco["annotations"]):
        coco["images"][place]["id"], entry["image_id"] = place, float(place)
        del coco["images"][place]["uuid"], entry["image_uuid"]
        entry["name"], entry["bbox"] = 7.0 + place % 4 // 2, []
    (folder / "a.json").write_text(json.dumps(coco))
    loaded = load_catalog(folder / "a.json")
    assert loaded["name"].tolist() == ["7", "7", "8", "8"] * 2
    assert (loaded[["x", "y", "w", "h"]] == [0, 0, 40, 30]).all(axis=None)


def test_a_folder_of_individuals_takes_the_species_as_a_parameter(tmp_path):
    tree(tmp_path, ["a/1.jpg", "a/2.jpg", "b/day 1/1.jpg", "b/day 2/1.jpg"])
    with pytest.raises(catalog.CatalogError, match="give species as a parameter"):
        load_catalog(tmp_path)
    loaded = load_catalog(tmp_path, species="whale")
    assert loaded["individual"].tolist() == ["whale/a"] * 2 + ["whale/b"] * 2
    assert loaded["encounter"].tolist() == ["", "", "day 1", "day 2"]


def test_a_folder_with_a_table_that_says_otherwise_is_refused(tmp_path):
    rows = some_rows()
    rows["file_path"] = [f"images/ant/{place}.jpg" for place in range(8)]
    tree(tmp_path, rows["file_path"])
    load(tmp_path, rows)
    with pytest.raises(ValueError, match=r"give its table of photos, not the folder: .*a\.csv"):
        load_catalog(tmp_path)


SAVED = {
    "semicolons in Windows-1252": (";", "cp1252", "", "no UTF-8"),
    "tabs in UTF-16": ("\t", "utf-16", "", ""),
    "a first line sep=;": (";", "utf-8", "sep=;\n", ""),
    "capitals in the header": (",", "utf-8", "", ""),
}


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize(("separator", "encoding", "first", "told"), SAVED.values(), ids=SAVED)
def test_tables_as_spreadsheets_save_them(folder, separator, encoding, first, told, end):
    expected, _ = load(folder, some_rows().assign(x="1.5", date="2019-05-03"))
    rows = some_rows().assign(x="1.5" if separator == "," else "1,5", date="03.05.2019")
    rows.columns = [name.title().replace("_", " ") for name in rows] if not first else rows.columns
    text = first + rows.to_csv(index=False, sep=separator)
    (folder / "saved.csv").write_bytes(text.replace("\n", end).encode(encoding))
    loaded = load_catalog(folder / "saved.csv")
    pd.testing.assert_frame_equal(loaded, expected)
    assert catalog.notices(loaded)["what"].str.contains(told).tolist() == [True] * bool(told)


def test_a_frame_saved_as_a_table_is_read(folder):
    given = frame(folder, orientation="left", bbox_theta=0.1)
    given.df.to_csv(folder / "frame.csv", index=False)
    expected = load_catalog(given)
    pd.testing.assert_frame_equal(load_catalog(folder / "frame.csv"), expected)


def test_a_cache_that_cannot_be_written_is_done_without(folder, monkeypatch):
    def forbidden(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(checks.Findings, "save", forbidden)
    assert len(load(folder, some_rows())[0]) == 8


def test_a_missing_relative_path_says_where_it_was_looked_for(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"looked for {tmp_path}/gone.csv"):
        load_catalog("gone.csv")
    monkeypatch.setenv("HOME", str(folder))
    some_rows().to_csv(folder / "a.csv", index=False)
    assert len(load_catalog("~/a.csv")) == 8


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["gray png", "gray tif", "colour png", "colour tif"])
def test_sixteen_bits_are_scaled_by_the_range_that_they_use(tmp_path, bits, kind):
    colours = np.random.default_rng(0).integers(0, 256, (20, 30, 3))
    colours[0, 0] = 255
    values = (colours * (2**bits - 1) / 255).round().astype(np.uint16)
    values = values[..., 0] if kind.startswith("gray") else values[..., ::-1]
    path = tmp_path / f"a.{kind[-3:]}"
    cv2.imwrite(str(path), values)
    expected = colours[..., :1] if kind.startswith("gray") else colours
    assert np.abs(photos.read_photo(path).astype(int) - expected).max() <= 1


def test_a_huge_jpeg_is_read_at_a_reduced_size(tmp_path, monkeypatch):
    Image.linear_gradient("L").resize((800, 400)).save(tmp_path / "a.jpg")
    whole = photos.read_photo(tmp_path / "a.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)  # 100,000 are decoded
    reduced, scale = photos.read_reduced(tmp_path / "a.jpg", 1.0)
    assert (reduced.shape, scale) == ((200, 400, 3), 0.5)
    assert np.abs(reduced.mean((0, 1)) - whole.mean((0, 1))).max() < 1


def test_a_date_in_the_file_is_read_and_that_of_its_last_change_is_told(tmp_path):
    tree(tmp_path, ["none.jpg"])
    for name, tags in {
        "taken": {0x9003: "2019:05:03 10:11:12\0", 0x0132: "2024:01:01 00:00:00"},
        "scanned": {0x9004: "2019:05:04 10:11:12"},
        "changed": {0x0132: "2019:05:05 10:11:12"},
        "offset": {0x9011: "+02:00"},
        "never": {0x9003: "0000:00:00 00:00:00"},
    }.items():
        exif = Image.Exif()
        for tag, value in tags.items():
            (exif if tag == 0x0132 else exif.get_ifd(0x8769))[tag] = value
        Image.new("RGB", (9, 9)).save(tmp_path / f"{name}.jpg", exif=exif)
    found = unidentified(tmp_path, ["ant"])
    days = found.set_index("annotation_id")["date"].dropna()
    assert days.to_dict() == {
        "changed.jpg": pd.Timestamp("2019-05-05 10:11:12"),
        "scanned.jpg": pd.Timestamp("2019-05-04 10:11:12"),
        "taken.jpg": pd.Timestamp("2019-05-03 10:11:12"),
    }
    told = catalog.notices(found)[["row", "done"]].to_numpy().tolist()
    assert told == [["never.jpg", "not used"], ["changed.jpg", "dated by its last change"]]


@pytest.mark.parametrize("made", [[], ["broken.jpg"]])
def test_nothing_to_identify_is_said_in_a_sentence(tmp_path, made):
    for name in made:
        (tmp_path / name).write_bytes(b"\xff\xd8\xff")
    with pytest.raises(catalog.CatalogError, match=r"no annotations|1 problem"):
        unidentified(tmp_path, ["ant"])


DECIDED = {  # a line of a sheet: query, decision, individual, date; what is read or refused
    "as on the page": (("q1", "accept", "ant/Alpha", "2019-05-03"), ("ant/Alpha", "2019-05-03")),
    "a name alone": (("q1", "accept", "Alpha", "2019-05-03"), ("ant/Alpha", "2019-05-03")),
    "a spreadsheet's": (("q1", "accept", "Alpha", "03.05.2019"), ("ant/Alpha", "2019-05-03")),
    "an American's date": (("q1", "accept", "Alpha", "5/3/2019"), ("ant/Alpha", "2019-05-03")),
    "a date removed": (("q1", "new", "Zulu", ""), ("Zulu", "2019-05-03")),
    "a date corrected": (("q1", "new", "Zulu", "2019-05-04"), ("Zulu", "2019-05-04")),
    "a date filled in": (("q2", "new", "Zulu", "31/05/2019"), ("Zulu", "2019-05-31")),
    "new with its species": (("q1", "new", "ant/Zulu", ""), ("Zulu", "2019-05-03")),
    "a date of two days": (("q2", "new", "Zulu", "03/05/2019"), "line 2: date can be two days"),
    "a strange query": (("q9", "accept", "ant/Alpha", ""), "line 2: this query is not on the page"),
    "a stranger": (("q1", "accept", "Alpka", ""), "line 2: accepts an individual that isn't known"),
    "another species": (("q1", "accept", "bee/Bert", ""), "line 2: accepts .* of another species"),
    "a new one that is known": (("q1", "new", "Alpha", ""), "line 2: calls an animal new that is"),
    "one known in capitals": (("q1", "new", "ALPHA", ""), "line 2: calls an animal new that is"),
}


@pytest.mark.parametrize(("line", "right"), DECIDED.values(), ids=DECIDED)
def test_decisions_are_matched_to_the_page_and_the_catalog(tmp_path, line, right):
    queries = pd.DataFrame({"annotation_id": ["q1", "q2"], "species": "ant"})
    queries["date"] = pd.to_datetime(["2019-05-03 10:00", None])
    known = pd.DataFrame({"individual": ["ant/Alpha", "bee/Bert"], "species": ["ant", "bee"]})
    query, decision, individual, date = line
    text = "query;file;species;date;decision;individual;score\n"
    text += f'{query};é.jpg;ant;{date};{decision};{individual};0,75\n"q2";;;;;;\n'
    (tmp_path / "sheet.csv").write_bytes(text.encode("cp1252"))
    if isinstance(right, str):
        with pytest.raises(ValueError, match=right):
            review.read(tmp_path / "sheet.csv", queries, known)
        return
    (found,) = review.read(tmp_path / "sheet.csv", queries, known).itertuples()
    assert (found.individual, found.date) == (right[0], pd.Timestamp(right[1]))
    assert (found.score, found.file) == (0.75, "é.jpg")


def test_a_query_decided_twice_is_refused(tmp_path):
    queries = pd.DataFrame({"annotation_id": ["q1"], "species": "ant", "date": pd.NaT})
    known = pd.DataFrame({"individual": ["ant/Alpha"], "species": ["ant"]})
    text = "query,file,species,date,decision,individual,score\n"
    text += "q1,,,,accept,Alpha,\nq1,,,,reject,,\nq1,,,,,,\n"
    (tmp_path / "sheet.csv").write_text(text)
    with pytest.raises(ValueError, match="line 2: this query is decided twice; line 3") as told:
        review.read(tmp_path / "sheet.csv", queries, known)
    assert "line 4" not in str(told.value)


def test_a_new_animal_is_spelt_in_one_way(tmp_path):
    queries = pd.DataFrame({"annotation_id": ["q1", "q2", "q3"], "species": "ant", "date": pd.NaT})
    known = pd.DataFrame({"individual": ["ant/Alpha"], "species": ["ant"]})
    text = "query,file,species,date,decision,individual,score\n"
    text += "q1,,,,new,Zulu,\nq2,,,,new,ZULU,\nq3,,,,new,Yan,\n"
    (tmp_path / "sheet.csv").write_text(text)
    with pytest.raises(ValueError, match=r"line 2: spells a new animal .*; line 3") as told:
        review.read(tmp_path / "sheet.csv", queries, known)
    assert "line 4" not in str(told.value)


def test_notices_of_one_kind_are_one_and_few_however_many_rows(folder):
    rows = pd.concat([some_rows()] * 8, ignore_index=True)
    rows["x"], rows["w"] = [str(place / 8) for place in range(64)], "20"
    rows["date"] = [f"{place}th of never" for place in range(64)]
    _, notices = load(folder, rows)
    notices = notices[notices["what"] != NUMBERED]
    assert len(notices) == 21
    assert notices["row"].iloc[-1] == "line 22 and 43 more"
