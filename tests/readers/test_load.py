"""The catalog: each problem one by one, every kind of source, and ids that stay."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from miewid_core import catalog
from miewid_core.photos import read_photo
from miewid_core.readers import checks
from miewid_core.readers.load import load_catalog
from tests.readers.made import HEIGHT, WIDTH, as_coco, boxes, draw, some_rows

pytestmark = pytest.mark.usefixtures("nothing_remembered")


@pytest.fixture(scope="module")
def folder(folder):
    """With a few photos that are not as they should be."""
    draw(folder / "turned.jpg", orientation=6)  # 30 wide and 40 high when upright
    whole = (folder / "ant/007/1.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").touch()
    draw(folder.parent / "outside.jpg")
    return folder


def write(folder, rows, name="annotations.csv"):
    rows.to_csv(folder / name, index=False)
    return folder / name


def problems_of(source, **options):
    with pytest.raises(catalog.CatalogError) as caught:
        load_catalog(source, **options)
    return caught.value.problems


BOX = "x, y, w, h"
ONE_ROW = {  # what is written over line 3: the column and text of the problem expected there
    "no file": ({"file_path": ""}, "file", "no file"),
    "missing file": ({"file_path": "ant/007/9.jpg"}, "file", "missing file"),
    "cut file": ({"file_path": "cut.jpg"}, "file", "unreadable"),
    "empty file": ({"file_path": "empty.jpg"}, "file", "unreadable"),
    "zero byte in a path": ({"file_path": "a\0.jpg"}, "file", "unreadable"),
    "path too long": ({"file_path": "a" * 300 + ".jpg"}, "file", "unreadable"),
    "climbing path": ({"file_path": "../outside.jpg"}, "file", "leaves"),
    "box without width": ({"w": "0"}, BOX, "box 1, 2, 0, 20 is empty"),
    "box of negative height": ({"h": "-5"}, BOX, "is empty"),
    "box of words": ({"x": "one"}, BOX, "is not four finite numbers"),
    "box half given": ({"y": "", "h": ""}, BOX, "is not four finite numbers"),
    "infinite box": ({"w": "inf"}, BOX, "is not four finite numbers"),
    "NaN in a box": ({"y": "nan"}, BOX, "is not four finite numbers"),
    "box mostly beyond the right": ({"x": "26"}, BOX, "outside the image of 40 x 30"),
    "box mostly beyond the bottom": ({"y": "20.5"}, BOX, "outside"),
    "box mostly beyond the left": ({"x": "-15.5"}, BOX, "outside"),
    "rotation in degrees": ({"theta": "45"}, "theta", "rotation '45' is no finite number"),
    "box wholly elsewhere": ({"x": "400"}, BOX, "outside"),
    "thin box just outside": ({"x": "40.2", "w": "0.5"}, BOX, "outside"),
    "box of the unturned photo": ({"file_path": "turned.jpg", "w": "39"}, BOX, "of 30 x 40"),
    "rotated centre outside": ({"x": "30", "theta": "0.5"}, BOX, "outside"),
    "no species": ({"species": ""}, "species", "no species"),
    "no side": ({"viewpoint": ""}, "viewpoint", "sides differ"),
    "unknown side": ({"viewpoint": "unknown"}, "viewpoint", "sides differ"),
}


@pytest.mark.parametrize(("change", "column", "text"), ONE_ROW.values(), ids=ONE_ROW)
def test_one_problem_is_found_named_and_dropped(folder, change, column, text):
    rows = some_rows()
    fine = load_catalog(write(folder, rows), sides_differ=["ant"])
    rows.loc[1, list(change)] = list(change.values())
    path = write(folder, rows)
    found = problems_of(path, sides_differ=["ant"])
    assert found[["row", "column"]].to_numpy().tolist() == [["line 3", column]]
    assert found["file"].tolist() == [rows.loc[1, "file_path"]]
    assert text in found.loc[0, "problem"]
    assert found.loc[0, "remedy"]

    with pytest.warns(
        catalog.CatalogWarning, match=r"dropped 1 of 8 rows: 1 problem\n  line 3"
    ) as told:
        photos = load_catalog(path, sides_differ=["ant"], on_problem="drop")
    assert photos.attrs["dropped"] == found.to_dict("records")
    assert photos["annotation_id"].tolist() == fine["annotation_id"].drop(1).tolist()
    assert photos.index.tolist() == list(range(7))
    assert told[0].filename == __file__


ACCEPTED = {  # what is written over line 3: the box it gives
    "slack on the right": ({"x": "10.9"}, (10.9, 2, 29.1, 20)),
    "beyond the right": ({"x": "12"}, (12, 2, 28, 20)),
    "beyond the bottom": ({"y": "11.5"}, (0, 11.5, 30, 18.5)),
    "beyond the left": ({"x": "-1.5"}, (0, 2, 28.5, 20)),
    "slack at the top and left": ({"x": "-0.5", "y": "-1"}, (0, 0, 29.5, 19)),
    "whole photo": ({"x": "", "y": "", "w": "", "h": ""}, (0, 0, 40, 30)),
    "whole turned photo": (
        {"file_path": "turned.jpg", "x": "", "y": "", "w": "", "h": ""},
        (0, 0, 30, 40),
    ),
    "box of the turned photo": ({"file_path": "turned.jpg", "y": "15"}, (0, 15, 30, 20)),
    "corners outside when rotated": ({"x": "20", "theta": "0.5"}, (20, 2, 30, 20)),
}


@pytest.mark.parametrize(("change", "box"), ACCEPTED.values(), ids=ACCEPTED)
def test_boxes_that_are_accepted(folder, change, box):
    rows = some_rows()
    rows.loc[1, list({"x": "0", **change})] = list({"x": "0", **change}.values())
    photo = load_catalog(write(folder, rows)).loc[1]
    assert photo[["x", "y", "w", "h"]].tolist() == pytest.approx(list(box))


def test_all_problems_come_at_once_in_the_order_of_the_rows(folder):
    rows = some_rows()
    rows.loc[0, ["file_path", "theta", "species"]] = ["ant/none.jpg", "90", ""]
    rows.loc[5, ["x", "encounter"]] = ["-29", "a\nb"]
    found = problems_of(write(folder, rows))
    assert found[["row", "column"]].to_numpy().tolist() == [
        *[["line 2", "species"], ["line 2", "file"], ["line 2", "theta"]],
        *[["line 7", "encounter"], ["line 7", BOX]],
    ]


def test_the_message_shows_twenty_and_counts_the_rest(folder):
    rows = pd.concat([some_rows().assign(h="?")] * 4)
    with pytest.raises(catalog.CatalogError) as caught:
        load_catalog(write(folder, rows))
    lines = str(caught.value).splitlines()
    assert len(caught.value.problems) == 32
    assert lines[0].endswith("annotations.csv: 32 problems")
    assert lines[20].startswith("  line 21: ")
    assert lines[21].startswith("  ... and 12 more")
    assert len(lines) == 22


@pytest.mark.parametrize("on_problem", ["raise", "drop"])
@pytest.mark.parametrize("missing", [["species"], ["name"], ["file_path"], ["species", "name"]])
def test_missing_columns_are_fatal_and_told_with_those_there(folder, missing, on_problem):
    path = write(folder, some_rows().drop(columns=missing))
    with pytest.raises(catalog.CatalogError, match=r"the columns are .*viewpoint") as caught:
        load_catalog(path, on_problem=on_problem)
    assert [column.split()[0] for column in caught.value.problems["column"]] == missing


def test_a_row_given_twice(folder):
    rows = some_rows()
    again = rows.iloc[[2]].assign(file_path="./ant/Zoë/../Zoë/1.jpg", x="1.0", encounter="e9")
    path = write(folder, pd.concat([rows, again]))
    found = problems_of(path)
    assert found["row"].tolist() == ["line 10"]
    assert found["problem"].tolist() == ["same as line 4"]
    with pytest.warns(catalog.CatalogWarning, match="same as line 4"):
        assert len(load_catalog(path, on_problem="drop")) == 8


def test_of_a_row_given_twice_the_right_one_stays(folder):
    rows = some_rows()
    rows.loc[2, "viewpoint"] = "a\tb"
    path = write(folder, pd.concat([rows, some_rows().iloc[[2]]]))
    with pytest.warns(catalog.CatalogWarning, match="dropped 1 of 9"):
        photos = load_catalog(path, on_problem="drop")
    assert set(photos["viewpoint"]) == {"left"}
    assert {drop["row"] for drop in photos.attrs["dropped"]} == {"line 4"}


def test_one_box_under_two_names_drops_both_even_beside_a_repeated_row(folder):
    rows = some_rows()
    rows = pd.concat([rows, rows.iloc[[2, 2]].assign(name=["Zora", "Zoë"])])
    found = problems_of(write(folder, rows))
    two_names = found[found["problem"].str.contains("two names")]
    assert two_names["row"].tolist() == ["line 4", "line 10", "line 11"]
    with pytest.warns(catalog.CatalogWarning, match="dropped 3 of 10"):
        photos = load_catalog(folder / "annotations.csv", on_problem="drop")
    assert not photos["path"].str.endswith("ant/Zoë/1.jpg").any()


def test_an_id_given_to_two_annotations_drops_both(folder):
    rows = some_rows().assign(uuid=list("abcdefgd"))
    path = write(folder, rows)
    assert problems_of(path)["row"].tolist() == ["line 5", "line 9"]
    with pytest.warns(catalog.CatalogWarning, match="id d is given to several"):
        photos = load_catalog(path, on_problem="drop")
    assert photos["annotation_id"].tolist() == list("abcefg")


def test_a_species_with_nothing_to_evaluate(folder):
    rows = some_rows()
    rows.loc[4:, "encounter"] = "one"  # all bees: each individual seen in one encounter
    path = write(folder, rows)
    found = problems_of(path)
    assert found["row"].tolist() == ["line 6", "line 7", "line 8", "line 9"]
    assert found["problem"].str.startswith("species with nothing to evaluate").all()
    with pytest.warns(catalog.CatalogWarning, match="dropped 4 of 8"):
        photos = load_catalog(path, on_problem="drop")
    assert set(photos["species"]) == {"ant"}
    assert len(photos.attrs["dropped"]) == 4
    rows.loc[4:, "encounter"] = ""  # unknown: each counts as one
    assert len(load_catalog(write(folder, rows))) == 8


def test_a_species_that_loses_its_pairs_to_dropping_goes_too_but_not_to_repairs(folder):
    rows = some_rows()
    rows.loc[[4, 6], "h"] = "0"
    path = write(folder, rows)
    assert problems_of(path)["row"].tolist() == ["line 6", "line 8"]
    with pytest.warns(catalog.CatalogWarning, match="dropped 4 of 8"):
        photos = load_catalog(path, on_problem="drop")
    rows_dropped = [problem["row"] for problem in photos.attrs["dropped"]]
    assert rows_dropped == ["line 6", "line 7", "line 8", "line 9"]


def test_dropping_everything_raises_and_dropping_nothing_is_silent(folder):
    path = write(folder, some_rows())
    assert load_catalog(path, on_problem="drop").attrs["dropped"] == []
    path = write(folder, some_rows().assign(h="0"))
    assert len(problems_of(path, on_problem="drop")) == 8


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("orientation", range(1, 10))  # 9 means nothing
def test_the_box_of_a_whole_photo_is_that_of_the_upright_one(tmp_path, orientation, verify):
    for kind in ("jpg", "png", "tif"):
        draw(tmp_path / f"ant/one/{kind}.{kind}", orientation)
    photos = load_catalog(tmp_path, verify=verify)
    for row in photos.itertuples():
        assert (row.h, row.w) == read_photo(row.path).shape[:2]
    assert photos["w"].unique() == [HEIGHT if orientation in range(5, 9) else WIDTH]


def test_names_of_digits_stay_as_they_are(folder):
    rows = some_rows().assign(name=["007", "007", "7", "7", "7.0", "7.0", "1e3", "1e3"])
    assert load_catalog(write(folder, rows))["name"].tolist() == rows["name"].tolist()


def test_verify_decides_whether_pixels_are_decoded(folder):
    rows = some_rows()
    rows.loc[1, "file_path"] = "cut.jpg"
    path = write(folder, rows)
    assert len(load_catalog(path, verify=False)) == 8
    assert problems_of(path)["column"].tolist() == ["file"]


def test_photos_of_too_many_pixels_are_read_if_they_are_jpegs(folder, monkeypatch):
    path = write(folder, some_rows())
    expected = load_catalog(path)
    for most in (WIDTH * HEIGHT - 1, WIDTH * HEIGHT // 30):  # Pillow warns, or raises
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
        monkeypatch.setattr(checks, "CACHE", folder / f"cache {most}")
        pd.testing.assert_frame_equal(load_catalog(path), expected)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    monkeypatch.setattr(checks, "CACHE", folder / "no cache")
    found = problems_of(path)
    assert found["problem"].str.contains("exceeds limit").all()
    assert found["remedy"].str.startswith("scale it down").all()


def test_absolute_paths_need_to_be_allowed(folder, tmp_path):
    rows = some_rows()
    rows["file_path"] = [str(folder / file) for file in rows["file_path"]]
    path = write(tmp_path, rows)
    found = problems_of(path)
    assert found["problem"].tolist() == ["absolute path"] * 8
    assert found["remedy"].str.contains("absolute_paths=True").all()
    photos = load_catalog(path, absolute_paths=True)
    assert photos["path"].tolist() == rows["file_path"].tolist()
    inside = load_catalog(write(folder, rows), absolute_paths=True)
    relative = load_catalog(write(folder, some_rows()))
    assert inside["annotation_id"].tolist() == relative["annotation_id"].tolist()


def test_ids_are_those_of_any_place(folder, tmp_path):
    """A copy of the folder elsewhere gives the same ids."""
    for file in some_rows()["file_path"]:
        draw(tmp_path / "copy" / file)
    here, there = (load_catalog(write(place, some_rows())) for place in (folder, tmp_path / "copy"))
    assert here["annotation_id"].tolist() == there["annotation_id"].tolist()
    assert here["annotation_id"].str.fullmatch("[0-9a-f]{16}").all()
    assert (here["path"] != there["path"]).all()


@given(st.permutations(range(8)), st.sets(st.sampled_from(["ant", "bee"])))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_order_of_rows_changes_no_id_and_no_individual(folder, order, sides):
    sorted_rows = load_catalog(write(folder, some_rows()), sides)
    mixed = load_catalog(write(folder, some_rows().iloc[order]), sides)
    back = mixed.set_index("annotation_id").loc[sorted_rows["annotation_id"]].reset_index()
    pd.testing.assert_frame_equal(back, sorted_rows)


LABELS = ["a", "a/a", "a%2Fa", "a%252Fa", "/", "%", "A", "é"]
SIDES = ["left", "Right", "frontleft"]
labels = st.sampled_from(LABELS)


@given(st.lists(st.tuples(labels, labels, labels), min_size=1, max_size=8, unique=True), st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_individuals_are_equal_exactly_if_their_parts_are(folder, animals, data):
    """Whatever the names contain: "/" and "%" too, in species with and without sides."""
    species = sorted({animal[0] for animal in animals})
    sides = data.draw(st.sets(st.sampled_from(species)))
    rows = pd.DataFrame(animals * 2, columns=["species", "name", "viewpoint"])
    rows["viewpoint"] = rows["viewpoint"].map(dict(zip(LABELS, SIDES * 3, strict=False)))
    rows = rows.assign(file_path="ant/007/1.jpg", x=range(len(rows)), y=0, h=5, w=0.5)
    rows["file_path"] = ["ant/007/1.jpg", "ant/007/2.jpg"] * len(animals)
    photos = load_catalog(write(folder, rows), sides)
    one = {"frontleft": "left", "Right": "right"}
    shown = rows["viewpoint"].replace(one).where(rows["species"].isin(sides), "")
    parts = list(zip(rows["species"], rows["name"], shown, strict=True))
    pairs = pd.DataFrame({"label": photos["individual"], "parts": parts}).drop_duplicates()
    assert pairs["label"].is_unique
    assert pairs["parts"].is_unique


def test_individual_is_species_and_name_and_the_side_where_sides_differ(folder):
    rows = some_rows().assign(viewpoint=["left", "Right", "left", "LEFT"] + ["front", ""] * 2)
    photos = load_catalog(write(folder, pd.concat([rows, rows.head(2).assign(x="2")])), ["ant"])
    assert photos["individual"].tolist()[:8] == [
        *["ant/007/left", "ant/007/right", "ant/Zoë/left", "ant/Zoë/left"],
        *["bee/007", "bee/007", "bee/Zoë", "bee/Zoë"],
    ]
    assert load_catalog(folder / "annotations.csv")["individual"].nunique() == 4


def test_text_is_stripped_and_byte_order_mark_blank_lines_and_other_columns_are_no_matter(folder):
    plain = load_catalog(write(folder, some_rows()))
    rows = some_rows().assign(notes="whatever", species=lambda table: " " + table["species"] + "\t")
    lines = rows.to_csv(index=False).splitlines()
    text = "\n".join([*lines[:3], "", *lines[3:], ""])
    (folder / "excel.csv").write_text(text, encoding="utf-8-sig")
    pd.testing.assert_frame_equal(load_catalog(folder / "excel.csv"), plain)
    (folder / "excel.csv").write_text(text.replace(",20,0", ",0,0"), encoding="utf-8-sig")
    lines_told = problems_of(folder / "excel.csv")["row"].tolist()
    assert lines_told == [f"line {line}" for line in (2, 3, 5, 6, 7, 8, 9, 10)]  # line 4 is blank


def test_file_name_stands_in_for_an_empty_file_path(folder):
    rows = some_rows()
    plain = load_catalog(write(folder, rows))
    split = rows.assign(file_path=rows["file_path"].where(rows.index < 4, ""))
    split["file_name"] = rows["file_path"].where(rows.index >= 4, "other.jpg")
    pd.testing.assert_frame_equal(load_catalog(write(folder, split)), plain)
    named = rows.rename(columns={"file_path": "file_name"})
    pd.testing.assert_frame_equal(load_catalog(write(folder, named)), plain)


def as_frame(folder, rows, box):
    """What wildlife-datasets gives, with its boxes in one of the ways that they come."""
    called = {"file_path": "path", "name": "identity", "viewpoint": "orientation"}
    frame = rows.rename(columns=called).drop(columns=["x", "y", "w", "h", "theta"])
    frame["bbox"] = [box(sides) for sides in boxes(rows)]
    frame["date"] = pd.to_datetime(frame["date"])
    return SimpleNamespace(df=frame.set_index(frame.index + 100), root=str(folder))


@pytest.mark.parametrize("kind", ["wildbook", "miewid", "list", "tuple", "array", "json"])
def test_every_source_gives_the_same_frame(folder, kind):
    rows = some_rows()
    expected = load_catalog(write(folder, rows), sides_differ=["bee"])
    if kind in ("wildbook", "miewid"):
        source = folder / "export.json"
        source.write_text(json.dumps(as_coco(rows, kind)))
        expected["annotation_id"] = [f"a{place}" for place in range(8)]
    else:
        box = {"list": list, "tuple": tuple, "array": np.array, "json": json.dumps}[kind]
        source = as_frame(folder, rows, box)
    pd.testing.assert_frame_equal(load_catalog(source, sides_differ=["bee"]), expected)


def test_a_folder_gives_the_frame_of_a_csv_with_files_and_labels_alone(tmp_path):
    rows = some_rows()[["file_path", "species", "name"]]
    rows["file_path"] = rows["file_path"].str.replace("2.jpg", "2.PNG")
    for file in rows["file_path"]:
        draw(tmp_path / file)
    (tmp_path / "ant/007/notes.txt").touch()
    photos = load_catalog(tmp_path)
    pd.testing.assert_frame_equal(photos, load_catalog(write(tmp_path, rows)))
    assert photos.columns.tolist() == catalog.COLUMNS
    assert (photos[["x", "y", "w", "h", "theta"]] == [0, 0, WIDTH, HEIGHT, 0]).all(axis=None)
    assert photos["date"].isna().all()
    assert (photos[["viewpoint", "encounter"]] == "").all(axis=None)
    draw(tmp_path / "ant/deep/er/1.jpg")
    found = problems_of(tmp_path)
    assert found["file"].tolist() == ["ant/deep/er/1.jpg"]
    assert found["row"].tolist() == ["photo 5"]
    assert "species/individual/" in found.loc[0, "remedy"]


def test_problems_of_a_frame(folder):
    frame = as_frame(folder, some_rows(), list).df.reset_index(drop=True)
    frame["bbox"] = [None, np.nan, [1, 2], "[1, 2", 7, "[1, 2, 30, null]", [1, 2, 30, 20], ""]
    frame.loc[6, "identity"] = np.nan
    frame.loc[7, "identity"] = "unknown"
    found = problems_of(SimpleNamespace(df=frame, root=folder))
    assert found[["row", "column"]].to_numpy().tolist() == [
        [f"row {place}", BOX] for place in (2, 3, 4, 5)
    ]
    del frame["species"]
    with pytest.raises(catalog.CatalogError, match="the columns are path, identity"):
        load_catalog(SimpleNamespace(df=frame, root=folder))


def test_problems_of_a_coco_export(folder):
    coco = as_coco(some_rows(), "wildbook")
    entries = coco["annotations"]
    entries[0]["theta"] = None
    entries[1]["image_uuid"] = "elsewhere"
    entries[4]["bbox"] = [1, 2, 3]
    entries[5]["name"] = "____"
    del entries[2]["theta"]  # not given, so not rotated
    (folder / "export.json").write_text(json.dumps(coco))
    found = problems_of(folder / "export.json")
    assert found[["row", "column"]].to_numpy().tolist() == [
        *[["annotation a1", "file"], ["annotation a4", BOX]],
    ]


def test_what_is_no_catalog(tmp_path):
    cases = {
        tmp_path / "none.csv": "no such file",
        tmp_path / "photos.zip": "can't be read",
        tmp_path: "no annotations",
        tmp_path / "nothing.csv": "no comma-separated table",
        tmp_path / "latin.csv": "no column file_path",
        tmp_path / "list.json": "no COCO export",
        tmp_path / "bare.json": "no annotations",
    }
    (tmp_path / "photos.zip").touch()
    (tmp_path / "nothing.csv").touch()
    (tmp_path / "latin.csv").write_bytes("species\nZoë\n".encode("latin-1"))
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "bare.json").write_text('{"images": [], "annotations": []}')
    for source, text in cases.items():
        with pytest.raises(ValueError, match=text):
            load_catalog(source)
    with pytest.raises(ValueError, match="supported are"):
        load_catalog(str(tmp_path / "none.csv"))
    with pytest.raises(ValueError, match="on_problem is 'ignore'"):
        load_catalog(tmp_path, on_problem="ignore")
