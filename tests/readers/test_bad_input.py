"""What is wrong with an input is said once: what, where, and the remedy; nothing is left behind."""

import io
import json
import os
import pickle
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from miewid_core import catalog, chips, model, photos
from miewid_core.paper import study
from miewid_core.paper.study import open_study
from miewid_core.readers.load import load_catalog
from miewid_core.readers.weights import load_model
from tests.readers.made import as_coco, draw, some_rows


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refused(call, folder, text):
    """The error of a call, which says `text` in few words and leaves the folder as it was."""
    before = tree(folder)
    with pytest.raises(ValueError, match=text) as told:
        call()
    assert tree(folder) == before
    assert type(told.value) in (ValueError, catalog.CatalogError, photos.ChipError)
    assert "Traceback" not in str(told.value)
    assert max(map(len, str(told.value).splitlines())) < 600
    return told.value


def refused_or_dropped(folder, source, where, text, load=load_catalog):
    """One row's problem: raised with place and remedy, or that row alone dropped and listed."""
    problems = refused(lambda: load(source), folder, text).problems
    assert set(problems["row"]) == {where}
    assert (problems["remedy"] != "").all()
    before = tree(folder)
    with pytest.warns(catalog.CatalogWarning, match=text) as told:
        photos = load(source, on_problem="drop")
    assert "dropped 1 of " in str(told[0].message)
    assert {dropped["row"] for dropped in photos.attrs["dropped"]} == {where}
    assert tree(folder) == before


def with_name(name):
    return lambda text: text.replace("ant,007", f"ant,{name}", 1)


TABLES = {  # the text of a good CSV to bytes that are none, and what is said of it
    "UTF-16 without its mark": (lambda text: text.encode("utf-16-le"), "UTF-8: .*; save it so"),
    "a photo": (lambda text: b"\xff\xd8\xff\xe0" + bytes(99), r"a\.csv: no .*UTF-8"),
    "zero bytes": (lambda text: bytes(500), r"(?s)a\.csv: .*no annotations"),
    "an open quote": (lambda text: text.replace("ant/Zo", '"ant/Zo', 1), "EOF inside string"),
    "a row too long": (
        lambda text: text.replace("left", "left,left", 3),
        "more cells than its header",
    ),
    "no header": (lambda text: text.partition("\n")[2], "no column species.*the columns are ant"),
    "two columns of names": (lambda text: text.replace("viewpoint", "name", 1), "columns name"),
    "two ids, one with a space": (lambda text: text.replace("date", " name", 1), "columns name"),
    "a header alone": (lambda text: text.partition("\n")[0], "no annotations"),
    "spaces": (lambda text: "  \n \n", "no column species; add it"),
}


@pytest.mark.parametrize(("change", "text"), TABLES.values(), ids=TABLES)
def test_a_table_that_is_none(folder, change, text):
    changed = change(some_rows().to_csv(index=False))
    content = changed if isinstance(changed, bytes) else changed.encode()
    (folder / "a.csv").write_bytes(content)
    for on_problem in ("raise", "drop"):
        refused(lambda how=on_problem: load_catalog(folder / "a.csv", on_problem=how), folder, text)


ROWS = {  # what is written over line 3, and what is said of it
    "line break in a name": ({"name": "Bel\nla"}, r"name 'Bel\\nla' has a line break"),
    "zero byte in a name": ({"name": "Bel\0la"}, r"name 'Bel\\x00la' has"),
    "name of another encoding": ({"name": "Zo\ufffd"}, "a damaged character; write it without"),
    "tab in a species": ({"species": "a\tnt"}, "species 'a.*tnt' has a line break"),
    "escape sign in an encounter": ({"encounter": "e\x1b[2J"}, "encounter .*write it without"),
    "name with a sign of no width": ({"name": "007\u200b"}, r"name '007\\u200b' looks like"),
    "name turned around": ({"name": "\u202e007"}, "looks like another.*same characters"),
    "accent as a letter of its own": ({"name": "Zoe\u0308"}, "looks like another"),
    "species with a sign of no width": ({"species": "ant\ufeff"}, "species .* looks like"),
    "box in parts of the photo": (
        {"x": "0.12", "y": "0.3", "w": "0.4", "h": "1"},
        "box 0.12, 0.3, 0.4, 1 is a single pixel; give pixels, not parts of 1",
    ),
    "rotation of many turns": ({"theta": "-1e9"}, "rotation '-1e9'"),
    "turned box of huge width": ({"x": "-1e9", "w": "2e9", "theta": "1"}, "outside the image"),
    "turned box beyond all numbers": ({"x": "-5e307", "w": "1e308", "theta": "1"}, "outside"),
    "box with decimal commas": ({"x": "1,5"}, "box 1,5, 2, .* give pixels, with a point"),
    "box of corners": ({"x": "35", "y": "5", "w": "39", "h": "29"}, "outside the image of 40 x 30"),
    "box of a huge whole number": ({"w": "9" * 30}, "outside the image"),
    "box of digits without end": ({"w": "9" * 999}, "not four finite numbers"),
    "box in hexadecimal": ({"x": "0x1"}, "not four finite numbers"),
    "path in other capitals": ({"file_path": "ANT/007/2.JPG"}, "there is ant/007/2.jpg: write"),
    "path with backslashes": ({"file_path": "ant\\007\\9.jpg"}, "missing file"),
    "path in other Unicode": ({"file_path": "ant/Zoe\u0308/2.jpg"}, "there is ant/Zoë/2.jpg"),
    "path of Windows": ({"file_path": "C:\\ant\\2.jpg"}, "missing file"),
    "path on the web": ({"file_path": "https://example.org/2.jpg"}, "missing file"),
    "path of a home": ({"file_path": "~/2.jpg"}, "missing file"),
    "path below a photo": ({"file_path": "ant/007/2.jpg/2.jpg"}, "missing file"),
    "path of the folder itself": ({"file_path": "."}, "is a folder; correct its path"),
    "path of a device": ({"file_path": "/dev/zero"}, "absolute path; make it relative"),
    "path that climbs and returns": (
        {"file_path": "../../../etc/passwd"},
        "path leaves the catalog's folder; move the photo",
    ),
}


@pytest.mark.parametrize(("change", "text"), ROWS.values(), ids=ROWS)
def test_a_row_that_cannot_be_used(folder, change, text):
    rows = some_rows().assign(uuid=list("abcdefgh"))
    rows.loc[1, list(change)] = list(change.values())
    rows.to_csv(folder / "a.csv", index=False)
    refused_or_dropped(folder, folder / "a.csv", "line 3", f"(?s)line 3: .*{text}")


def image(kind, *more):
    content = io.BytesIO()
    # copies: Pillow keeps an encoder's settings with a picture, for the next encoder too
    moving = {"save_all": True, "append_images": [frame.copy() for frame in more]} if more else {}
    Image.effect_noise((40, 30), 90).convert("RGB").save(content, kind, **moving)
    return content.getvalue()


def png(width, height, data=b""):
    parts = {b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT": data}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in [*parts.items(), (b"IEND", b"")]
    )


def jpeg_of_size(side):
    content = bytearray(image("jpeg"))
    at = content.find(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", side, side)
    return bytes(content)


FRAMES = [Image.new("RGB", (40, 30), colour) for colour in ("black", "red")]
IMAGES = {  # the bytes of a file called photo.jpg, and what is said of it
    "a page that was not found": (b"<html>404</html>", "cannot identify .*; replace it, or save"),
    "a film": (b"\0\0\0\x20ftypisom" + bytes(300), "cannot identify"),
    "a phone's HEIC": (b"\0\0\0\x20ftypheic" + bytes(300), "save it again as JPEG or PNG"),
    "a drawing program": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\nshowpage\n",
        "EPS is no photo but a program",
    ),
    "a moving GIF": (image("gif", *FRAMES), "an animation of 3 pictures, not one photo"),
    "a moving PNG": (image("png", *FRAMES), "an animation of 3 pictures"),
    "a moving WebP": (image("webp", *FRAMES), "an animation of 3 pictures"),
    "a bomb of zeros": (png(60_000, 60_000), r"3600000000 pixels\) exceeds limit"),
    "a bomb of a JPEG": (jpeg_of_size(65_535), "exceeds limit"),
    "more pixels than can be counted": (png(2**31 - 1, 2**31 - 1), "exceeds limit"),
    "no pixel": (png(0, 30), "unreadable file"),
    "a header alone": (png(40, 30), "truncated"),
    "rows cut short": (png(40, 30, zlib.compress(bytes(121 * 30))[:-20]), "truncated"),
    "a JPEG without its end": (image("jpeg")[:-20], "truncated"),
    "a TIFF without its pixels": (image("tiff")[:200], "unreadable file"),
}


@pytest.mark.parametrize(("content", "text"), IMAGES.values(), ids=IMAGES)
def test_a_file_that_is_no_photo(folder, content, text):
    (folder / "photo.jpg").write_bytes(content)
    rows = some_rows()
    rows.loc[1, "file_path"] = "photo.jpg"
    rows.to_csv(folder / "a.csv", index=False)
    place = f"(?s)line 3: photo.jpg: .*{text}"
    refused_or_dropped(folder, folder / "a.csv", "line 3", place)
    table = pd.DataFrame([(str(folder / "photo.jpg"), 0.0, 0.0, 9.0, 9.0, 0.0)])
    table.columns = ["path", "x", "y", "w", "h", "theta"]
    with pytest.raises(photos.ChipError, match=r"photo\.jpg: can't be read as an image .*replace"):
        chips.ChipStore(folder / "chips", 8).build(table)
    assert not [path for path in (folder / "chips").rglob("*") if path.suffix == ".safetensors"]


def link_to(target):
    return lambda path: path.symlink_to(target)


NO_FILES = {
    "a link to nothing": (link_to("nowhere.jpg"), "missing file: .*nowhere.jpg is none"),
    "a link to what is no photo": (link_to("/etc/hostname"), "unreadable file"),
    "a link around in a circle": (link_to("photo.jpg"), "photo.jpg"),
    "a pipe, which never ends": (os.mkfifo, "missing file"),
    "a folder called .jpg": (Path.mkdir, "is a folder"),
}


@pytest.mark.parametrize(("make", "text"), NO_FILES.values(), ids=NO_FILES)
def test_what_is_no_file(tmp_path, make, text):
    for file in some_rows()["file_path"]:
        draw(tmp_path / file)
    make(tmp_path / "photo.jpg")
    rows = some_rows()
    rows.loc[1, "file_path"] = "photo.jpg"
    rows.to_csv(tmp_path / "a.csv", index=False)
    refused_or_dropped(tmp_path, tmp_path / "a.csv", "line 3", f"(?s)line 3: .*{text}")


GOOD = {  # odd files that are photos all the same
    "a PNG called .jpg": image("png"),
    "a phone's photo with its preview": image("mpo", *FRAMES),
    "pages of a TIFF": image("tiff", *FRAMES),
    "a GIF that doesn't move": image("gif"),
    "bytes after the end": image("jpeg") + bytes(999),
}


@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD)
def test_odd_files_and_names_that_are_fine(folder, content):
    odd = "ant/a  photo, 'with' spaces; \u540d\u524d.jpg"
    (folder / odd).write_bytes(content)
    rows = some_rows()
    rows.loc[1, ["file_path", "w", "h"]] = [odd, "20", "20"]
    rows.to_csv(folder / "a.csv", index=False)
    assert load_catalog(folder / "a.csv").loc[1, "path"] == str(folder / odd)
    (folder / odd).unlink()


def put(*place):
    """A change of a COCO export: the last of `place` is written at the others."""
    *path, key, value = place

    def change(coco):
        for part in path:
            coco = coco[part]
        coco[key] = value

    return change


EXPORTS = {  # a change of a whole export
    "images are no list": (put("images", {"a": 1}), "images is no list of objects.*export it"),
    "images are numbers": (put("images", [1, 2]), "images is no list of objects"),
    "annotations are text": (put("annotations", "abc"), "annotations is no list of objects"),
    "an annotation is null": (put("annotations", 1, None), "annotations is no list of objects"),
    "an annotation is a list": (put("annotations", 1, [1]), "annotations is no list of objects"),
    "an individual is text": (put("individuals", 1, "a"), "individuals is no list of objects"),
    "no annotations": (put("annotations", None), "no annotations"),
    "no images": (put("images", None), "no column file_path or file_name"),
    "one id for two images": (
        lambda coco: coco["images"].append({"uuid": "i1", "file_name": "bee/007/1.jpg"}),
        "images has two entries with the id i1; keep one",
    ),
}


@pytest.mark.parametrize(("change", "text"), EXPORTS.values(), ids=EXPORTS)
def test_an_export_that_is_none(folder, change, text):
    coco = as_coco(some_rows(), "wildbook")
    change(coco)
    (folder / "a.json").write_text(json.dumps(coco))
    refused(lambda: load_catalog(folder / "a.json"), folder, rf"(?s)a\.json: .*{text}")


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"images": [', '{"images": [], "annotations": []} {}', "1" + "0" * 5000],
)
def test_what_is_no_json(folder, text):
    (folder / "a.json").write_text(text)
    refused(
        lambda: load_catalog(folder / "a.json"), folder, r"a\.json: no JSON .*; export it again"
    )


ENTRIES = {  # a change of annotation a1, by the kind of export that has it
    "no such image": ("wildbook", put("image_uuid", "none"), "no file; fill .* its id names"),
    "an image of no id": ("wildbook", put("image_uuid", None), "no file"),
    "no such category": ("miewid", put("category_id", 99), "no species; fill it in"),
    "a name of half a character": ("wildbook", put("name", "\ud800"), r"name '\\ufffd' has"),
    "an id of half a character": ("wildbook", put("viewpoint", "\ud800"), "viewpoint .* has"),
    "a box of pairs": ("wildbook", put("bbox", [[1, 2], [3, 4]]), "not four finite numbers"),
    "a box by names": ("wildbook", put("bbox", {"x": 1, "y": 2}), "not four finite numbers"),
    "an endless box": ("wildbook", put("bbox", [1, 2, float("inf"), 4]), "not four finite"),
    "no box but false": ("wildbook", put("bbox", False), "box False"),
    "a deep box": ("wildbook", put("bbox", "[" * 100_000), "not four finite numbers"),
    "a rotation in degrees": ("wildbook", put("theta", 45), "rotation '45'"),
}


@pytest.mark.parametrize(("style", "change", "text"), ENTRIES.values(), ids=ENTRIES)
def test_an_annotation_that_cannot_be_used(folder, style, change, text):
    coco = as_coco(some_rows(), style)
    coco["images"].append({"uuid": None, "file_name": "ant/007/1.jpg"})
    change(coco["annotations"][1])
    (folder / "a.json").write_text(json.dumps(coco))
    place = f"(?s)annotation a1: .*{text}"
    refused_or_dropped(folder, folder / "a.json", "annotation a1", place)


FILES_OF_A_TREE = {  # a photo put into the folder tree, and what is said of it
    "HEIC": ("ant/007/3.HEIC", "unreadable file.*save it again as JPEG"),
    "a file half copied": ("ant/007/3.jpg", "unreadable file"),
    "a folder too few": ("ant/3.jpg", "no species"),
    "no UTF-8": (os.fsdecode(b"ant/Zo\xeb/1.jpg"), r"name 'Zo\\ufffd' has"),
    "line break": ("ant/a\nb/3.jpg", r"name 'a\\nb' has a line break"),
}


@pytest.mark.parametrize(("name", "text"), FILES_OF_A_TREE.values(), ids=FILES_OF_A_TREE)
def test_a_file_of_a_tree_that_cannot_be_used(tmp_path, name, text):
    for file in some_rows()["file_path"]:
        draw(tmp_path / file)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"\0\0\0\x20ftypheic")
    refused(
        lambda: load_catalog(tmp_path), tmp_path, f"(?s)x: .*{text}".replace("x", tmp_path.name)
    )
    with pytest.warns(catalog.CatalogWarning, match=f"(?s)dropped 1 of 9 rows.*{text}"):
        assert len(load_catalog(tmp_path, on_problem="drop")) == 8


def test_a_folder_that_may_not_be_read_is_reported_not_passed_over(tmp_path, monkeypatch):
    for file in some_rows()["file_path"]:
        draw(tmp_path / file)
    (tmp_path / "ant/new").mkdir(mode=0)
    if os.geteuid() == 0:  # to root nothing is forbidden
        allowed = os.access
        monkeypatch.setattr(
            os, "access", lambda file, how: file.name != "new" and allowed(file, how)
        )
    refused(lambda: load_catalog(tmp_path), tmp_path, "ant/new is a folder that you may not read")


def test_two_unused_columns_of_one_name_do_not_matter(tmp_path):
    rows = some_rows().assign(notes="two\nlines", **{"notes ": "x"})
    for file in rows["file_path"]:
        draw(tmp_path / file)
    rows.to_csv(tmp_path / "a.csv", index=False)
    assert len(load_catalog(tmp_path / "a.csv")) == len(rows)


def frame(**columns):
    called = {"file_path": "path", "name": "identity"}
    return some_rows().rename(columns=called)[["path", "identity", "species"]].assign(**columns)


SOURCES = {
    "nothing": (None, "a NoneType is no catalog; supported are"),
    "no name": ("  ", "no catalog is named; supported are"),
    "a table": (pd.DataFrame(), "a DataFrame is no catalog"),
    "a name too long": ("x" * 300, "File name too long; supported are"),
    "a web page": ("https://example.org/a.csv", "no such file"),
    "a demo in capitals": ("DEMO", '.looked for /.*DEMO.; supported are "demo"'),
    "no frame": (SimpleNamespace(df=None, root="."), "has no frame .df"),
    "no root": (SimpleNamespace(df=frame(), root=None), "and folder .root"),
    "a root elsewhere": (SimpleNamespace(df=frame(), root="/nowhere"), "missing file: /nowhere"),
    "an empty frame": (SimpleNamespace(df=frame().head(0), root="."), "no annotations"),
    "two columns of species": (
        SimpleNamespace(df=pd.concat([frame(), frame()[["species"]]], axis=1), root="."),
        "two columns species: rename or remove one",
    ),
    "columns of two levels": (
        SimpleNamespace(df=pd.concat({"a": frame()}, axis=1), root="."),
        "no column species",
    ),
    "boxes without order": (
        SimpleNamespace(df=frame(bbox=[{1, 2, 3, 4}] * 8), root="."),
        "not four finite numbers",
    ),
}


@pytest.mark.parametrize(("source", "text"), SOURCES.values(), ids=SOURCES)
def test_a_source_of_another_kind(folder, source, text):
    refused(lambda: load_catalog(source), folder, text)


UNEVALUABLE = {  # the photos that there are, all of one encounter
    "one photo": [0],
    "all singletons": [0, 2, 4, 6],
    "one individual": [0, 1],
    "all": range(8),
}


@pytest.mark.parametrize("kept", UNEVALUABLE.values(), ids=UNEVALUABLE)
def test_nothing_to_evaluate(folder, kept):
    some_rows().iloc[list(kept)].assign(encounter="e").to_csv(folder / "a.csv", index=False)
    for on_problem in ("raise", "drop"):
        text = "nothing to evaluate: no individual .* two encounters; add photos"
        refused(lambda how=on_problem: load_catalog(folder / "a.csv", on_problem=how), folder, text)


@pytest.mark.parametrize("sides", [7, [7], [None], ["ant", 1.5]])
def test_sides_that_name_no_species(folder, sides):
    some_rows().to_csv(folder / "a.csv", index=False)
    text = "sides_differ is .*; give a list of names of species"
    refused(lambda: load_catalog(folder / "a.csv", sides_differ=sides), folder, text)


def test_lines_are_counted_as_an_editor_does(folder):
    rows = some_rows().assign(notes=["two\nlines", "three\n\nlines", *["one"] * 6])
    rows.loc[[1, 4], "w"] = "?"
    rows.to_csv(folder / "a.csv", index=False, lineterminator="\r\n")
    with pytest.raises(catalog.CatalogError) as told:
        load_catalog(folder / "a.csv")
    lines = (folder / "a.csv").read_text().splitlines()
    for row, start in zip(told.value.problems["row"], ("ant/007/2", "bee/007/1"), strict=True):
        assert lines[int(row.removeprefix("line ")) - 1].startswith(start)


@pytest.mark.slow
def test_a_million_rows_as_a_spreadsheet_writes_them(folder):
    rows = pd.concat([some_rows()] * 125_000, ignore_index=True)
    rows["x"] = rows.index // 8 / 125_000  # no box twice
    rows = rows[["file_path", "species", "name", "x", "y", "w", "h"]]
    rows.loc[len(rows) - 1, "w"] = "wide"
    rows.to_csv(folder / "a.csv", index=False, sep=";", lineterminator="\r\n", encoding="utf-8-sig")
    with pytest.warns(catalog.CatalogWarning, match="line 1000001: bee/Zoë/2.jpg: box .*wide"):
        assert len(load_catalog(folder / "a.csv", on_problem="drop")) == 999_999
    (folder / "a.csv").unlink()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A saved network, its tensors, and the path of a copy to spoil."""
    path = tmp_path_factory.mktemp("weights") / "good.safetensors"
    network = model.MiewIDNet("test_efficientnet")
    model.save(network, model.Preprocess(64, (0.1,) * 3, (0.2,) * 3), path)
    return path


def spoilt(path, change=lambda state: state, **config):
    own = {"format": 1, "backbone": "test_efficientnet", "size": 64}
    own |= {"mean": [0.1] * 3, "std": [0.2] * 3} | config
    bad = path.with_name("bad.safetensors")
    save_file(change(load_file(path)), bad, {"config": json.dumps(own)})
    return bad


TENSORS = {  # a change of the tensors, and what is said of it
    "none": (lambda state: {}, "missing .* and .* more"),
    "one too few": (
        lambda s: {k: v for k, v in s.items() if k != "pooling.p"},
        "missing pooling.p",
    ),
    "one too many": (lambda s: s | {"fc.weight": s["bn.bias"] * 1}, "unexpected fc.weight"),
    "of a wrapped network": (lambda state: {f"module.{k}": v for k, v in state.items()}, "missing"),
    "not a number": (lambda s: s | {"bn.weight": s["bn.weight"] * np.nan}, "bn.weight is not fin"),
    "infinite": (lambda s: s | {"bn.bias": s["bn.bias"] + np.inf}, "bn.bias is not finite"),
    "whole numbers": (lambda s: s | {"bn.bias": s["bn.bias"].long()}, "bn.bias is of torch.int64"),
    "a part": (
        lambda s: s | {"backbone.conv_stem.weight": s["backbone.conv_stem.weight"][:1].clone()},
        r"backbone.conv_stem.weight has shape \(1, 3, 3, 3\), not",
    ),
}


@pytest.mark.parametrize(("change", "text"), TENSORS.values(), ids=TENSORS)
def test_weights_that_do_not_fit(weights, change, text):
    bad = spoilt(weights, change)
    refused(
        lambda: load_model(bad), weights.parent, rf"bad\.safetensors does not fit: .*{text}|{text}"
    )


def test_weights_of_half_precision_are_fine(weights):
    bad = spoilt(weights, lambda state: {k: v.half() if v.ndim else v for k, v in state.items()})
    assert next(load_model(bad)[0].parameters()).dtype == torch.float32


BACKBONES = ["nonsense", "hf-hub:owner/name", "local-dir:/tmp", "resnet18.no_such_tag", "", None, 7]
CONFIGS = [
    *[{"size": size} for size in (0, -1, 64.5, "64", None, 10**9, [64])],
    *[{"mean": mean} for mean in (None, [0.1], ["a"] * 3, "abc", 7, [float("nan")] * 3)],
    *[{"std": std} for std in ([0.0] * 3, [-1.0] * 3, [float("inf")] * 3, [[0.1] * 3] * 3)],
]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_weights_of_a_backbone_that_timm_lacks(weights, backbone):
    """Names that timm would look for on the network or on the disk too."""
    bad = spoilt(weights, backbone=backbone)
    refused(lambda: load_model(bad), weights.parent, "has no backbone .*: choose one of timm")


METADATA = ["", "{", "[1]", "null", '"x"', '{"format": null}', "{}", '{"format": 1}']


@pytest.mark.parametrize("text", METADATA)
def test_weights_of_damaged_metadata(weights, text):
    bad = spoilt(weights)
    save_file(load_file(bad), bad, {"config": text})
    refused(lambda: load_model(bad), weights.parent, "bad.*: its metadata is damaged")


def test_weights_of_a_newer_format(weights):
    bad = spoilt(weights, format=2, size="what only it knows")
    refused(lambda: load_model(bad), weights.parent, "newer miewid_core: update")


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_weights_of_an_impossible_preprocessing(weights, config):
    bad = spoilt(weights, **config)
    text = r"bad\.safetensors: its metadata is damaged"
    refused(lambda: load_model(bad), weights.parent, text)


def header(**tensors):
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text + bytes(8)


NO_WEIGHTS = {
    "nothing": b"",
    "tensors cut short": header(a={"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}),
    "a pickle under another name": pickle.dumps({"bn.weight": [1.0]}),
    "a header larger than the file": (10**18).to_bytes(8, "little") + b"{}",
    "a header that is no JSON": (6).to_bytes(8, "little") + b"{nope}",
    "a shape below zero": header(a={"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]}),
    "a type that is none": header(a={"dtype": "Z9", "shape": [1], "data_offsets": [0, 8]}),
    "tensors over each other": header(
        a={"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        b={"dtype": "F32", "shape": [1], "data_offsets": [2, 6]},
    ),
}


@pytest.mark.parametrize("content", NO_WEIGHTS.values(), ids=NO_WEIGHTS)
def test_files_that_hold_no_weights(tmp_path, content):
    (tmp_path / "bad.safetensors").write_bytes(content)
    text = r"bad\.safetensors is no readable safetensors file"
    refused(lambda: load_model(tmp_path / "bad.safetensors"), tmp_path, text)


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth", "epoch.ckpt"])
def test_pickles_are_never_run(tmp_path, name):
    torch.save({"bn.weight": Bomb(tmp_path / "run")}, tmp_path / name)
    text = f"{name} is .*a pickle.* convert it once"
    refused(lambda: load_model(tmp_path / name), tmp_path, text)
    refused(lambda: model.MiewIDNet("test_efficientnet", tmp_path / name), tmp_path, text)


PARAMETERS = {  # what a notebook is given: a name for each that is wrong, and what is said of it
    "preset": ({"preset": "large"}, "there is no preset 'large'; choose one of demo, compact, pap"),
    "epochs": ({"epochs": -1}, "epochs is -1; it must be at least 0"),
    "image_size": ({"image_size": -5}, "image_size is -5; it must be at least 1"),
    "image_size with a fraction": ({"image_size": 2.5}, "image_size is 2.5; give a whole number"),
    "pretrained": ({"pretrained": "gone.safetensors"}, "pretrained: there is no file .*gone"),
    "seed": ({"seed": -1}, "seed is -1; give a whole number"),
    "on_problem": ({"on_problem": "ignore"}, "on_problem is 'ignore'; it can be"),
    "sides_differ": ({"sides_differ": "ant, aunt"}, "names aunt, .*the species are ant, bee"),
    "sides_differ as a number": ({"sides_differ": 7}, "sides_differ is 7; give a list"),
    "catalog": ({"catalog": ""}, "no catalog is named; supported are"),
    "catalog as a number": ({"catalog": 7}, "7: no such file or folder .looked for /.*7.; supp"),
    "pretrained as a number": ({"pretrained": 7}, "pretrained is 7; name a weights file"),
    "pretrained in a pickle": (
        {"pretrained": "a.pth"},
        "a.pth is no readable .*pickle, convert it once",
    ),
    "pretrained of the hub": (
        {"pretrained": "a.BIN"},
        "a.BIN is no readable .*pickle, convert it once",
    ),
    "figures_dir": ({"figures_dir": "a.csv"}, "figures_dir is a.csv, but a.csv is a file; name a"),
    "figures_dir in a file": ({"figures_dir": "a.csv/x/y"}, "but .*a.csv is a file; name a folder"),
    "figures_dir as a number": ({"figures_dir": 7}, "figures_dir is 7; name a folder"),
    "runs_dir in a file": ({"runs_dir": "a.pth/runs"}, "runs_dir is .*a.pth is a file"),
    "runs_dir as a list": ({"runs_dir": ["a"]}, r"runs_dir is \['a'\]; name a folder"),
    "scheduler": ({"scheduler": "somewhere"}, "scheduler is 'somewhere'; give an address such as"),
    "scheduler without a port": ({"scheduler": "tcp://host"}, '; give .*"tcp://host:8786"'),
    "scheduler of the web": ({"scheduler": "http://host:8787/status"}, "scheduler is 'http"),
    "scheduler as a number": ({"scheduler": 8786}, "scheduler is 8786; give an address"),
}


@pytest.mark.parametrize(("changes", "text"), PARAMETERS.values(), ids=PARAMETERS)
def test_a_notebook_parameter_that_is_wrong(folder, changes, text, monkeypatch):
    some_rows().to_csv(folder / "a.csv", index=False)
    for name in ("a.pth", "a.BIN"):
        (folder / name).touch()
    monkeypatch.chdir(folder)
    refused(lambda: open_study(**{"catalog": "a.csv"} | changes), folder, text)


def test_a_cache_that_is_a_file(folder, monkeypatch):
    some_rows().to_csv(folder / "a.csv", index=False)
    monkeypatch.setattr(study, "CACHE", folder / "a.csv")
    given = {"catalog": str(folder / "a.csv"), "runs_dir": str(folder)}
    refused(lambda: open_study(**given), folder, r"chips_dir is .*a\.csv is a file")


@pytest.mark.parametrize("scheduler", ["tcp://host:8786", "tls://10.0.0.1:1", "tcp://[::1]:8786"])
def test_addresses_that_dask_knows(folder, scheduler):
    some_rows().to_csv(folder / "a.csv", index=False)
    assert open_study(str(folder / "a.csv"), scheduler=scheduler).scheduler == scheduler
