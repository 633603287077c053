"""Public sets and other catalogs as CSVs; by the real wildlife-datasets, where it is installed."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from miewid_core.__main__ import main
from miewid_core.paper import public
from miewid_core.readers.load import load_catalog
from tests.readers.made import some_rows

SETS = pd.read_csv(public.SETS, keep_default_na=False).set_index("dataset")
LILA = SETS[SETS["file"] != ""]
PACKAGE = "wildlife_datasets.datasets"


def photo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([*str(path).encode()]).integers(0, 255, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def nyala(folder):
    for number in range(8):
        side = ("left", "right")[number % 2]
        photo(folder / "main" / "Nyala" / "train" / str(7 + number // 4) / f"{number}_{side}.jpg")
    return {"nyala/7", "nyala/8"}


def happy_whale(folder):
    rows = [(f"f{number}.jpg", "fin_whale", "f1") for number in range(2)]
    rows += [(f"k{number}.jpg", "killer_whale", "k1") for number in range(2)]
    for name, *_ in rows:
        photo(folder / "train_images" / name)
    photo(folder / "test_images" / "c.jpg")  # of nobody known
    columns = ["image", "species", "individual_id"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "train.csv", index=False)
    return {"fin_whale/f1", "orca/k1"}  # as Table 2 calls killer whales


def wild_me(table, *species):
    """One of Wild Me's sets as LILA has it: two animals of each species, one of them turned."""
    year, parts = table.stem[-4:], {"images": [], "annotations": []}
    for number in range(4 * len(species)):
        kind, animal = divmod(number // 2, 2)
        name = f"{number + 1:012d}.jpg"
        photo(table.parent.parent / "images" / f"train{year}" / name)
        day = "NA" if number == 3 else f"2014-07-0{number + 1} 10:00:00"
        parts["images"].append({"id": number + 1, "file_name": name, "date_captured": day})
        corners = [3, 2, 23, 2, 23, 22, 3, 22, 3, 2]
        own = {"id": number + 1, "image_id": number + 1, "uuid": f"u{number}", "category_id": kind}
        own |= {"bbox": [3.0, 2.0, 20.0, 20.0], "theta": 0.5 * animal, "segmentation": [corners]}
        own |= {"viewpoint": "left", "name": f"animal{animal}"}
        parts["annotations"].append(own)
    parts["annotations"].append(own | {"id": 90, "uuid": "u90", "name": "____"})  # nobody known
    kinds = [{"id": i, "name": name, "supercategory": "animal"} for i, name in enumerate(species)]
    table.parent.mkdir()
    table.write_text(json.dumps(parts | {"categories": kinds}))
    empty = {"images": [], "annotations": [], "categories": kinds}
    for part in ("val", "test"):  # as LILA has them
        (table.parent / f"instances_{part}{year}.json").write_text(json.dumps(empty))


def beluga(folder):
    table = LILA["file"]["beluga_whale"]
    wild_me(folder / "beluga" / table, "beluga_whale")  # where the package unpacks the archive
    return {"beluga_whale/animal0", "beluga_whale/animal1"}


def command(capsys, *words):
    """The exit status of `miewid catalog` and what it says."""
    status = 0
    try:
        main(["catalog", *map(str, words)])
    except SystemExit as stopped:
        status = stopped.code
    said = capsys.readouterr()
    return status, said.out + said.err


def test_a_catalog_of_a_reader_is_written_to_be_read_again(tmp_path, capsys):
    table, out = tmp_path / "photos" / "mine.csv", tmp_path / "made" / "out.csv"
    rows = some_rows()
    rows["species"] = rows["species"].replace({"ant": "Spotted hyena", "bee": "Bee"})
    rows.loc[1, ["theta", "x", "date"]] = ["0.3", "2.25", "2024-05-02 07:08:09"]
    for place, file in enumerate(rows["file_path"][:-1]):
        photo(table.parent / file)
        rows.loc[place, "viewpoint"] = ("left", "frontright")[place % 2]
    rows.to_csv(table, index=False)
    status, said = command(capsys, table, "-o", out)
    read = public.read(str(table))
    again = load_catalog(out, photos_dir=table.parent)
    pd.testing.assert_frame_equal(again, read)
    assert (len(again), set(again["species"])) == (7, {"hyena", "Bee"})
    assert again["theta"][1] == 0.3
    assert status == 0
    assert "7 annotations of 4 individuals of 2 species (Bee, hyena)" in said
    assert "1 rows with problems left out" in said
    assert "Spotted hyena is hyena" in said
    assert "The paper has no Bee" in said
    assert "SIDES_DIFFER=Bee,hyena" in said
    assert "line 9: bee/Zoë/2.jpg: missing file" in said
    assert f"make figures CATALOG={out} PHOTOS_DIR={table.parent} PRESET=compact" in said
    assert command(capsys, out, "-o", out)[1].endswith(
        "is the source itself; write to another file\n"
    )
    noticed = pd.read_csv(out.with_name("out_notices.csv"))
    assert noticed["row"].tolist() == ["line 9"]


def test_an_encounter_that_a_lost_photo_joined_is_read_again_as_it_was_written(tmp_path):
    rows = pd.DataFrame(
        [
            (f"{name}{visit}{photo}.png", name, visit)
            for name in "ab"
            for visit in "12"
            for photo in "xy"
        ]
        + [(f"both{visit}.png", name, visit) for name in "ab" for visit in "12"],  # all missing
        columns=["file_name", "name", "encounter"],
    )
    rows.assign(species="ant").to_csv(tmp_path / "herd.csv", index=False)
    for file in rows["file_name"][:8]:
        photo(tmp_path / file)
    read = public.read(str(tmp_path / "herd.csv"))
    assert set(read["encounter"]) == {"1", "2"}
    public.write(read, tmp_path / "out.csv")
    written = pd.read_csv(tmp_path / "out.csv", dtype=str)["encounter"]
    assert load_catalog(tmp_path / "out.csv")["encounter"].tolist() == written.tolist()
    assert set(written) == {"ant/a: 1", "ant/a: 2", "ant/b: 1", "ant/b: 2"}


@pytest.mark.parametrize("name", LILA.index)
def test_wild_mes_sets_on_lila_are_read_from_their_own_table(name, tmp_path, capsys):
    table = tmp_path / LILA["file"][name]
    own = {"giraffe": ["zebra_plains", "giraffe_masai"]}.get(name, [name])
    wild_me(table, *own)
    out = tmp_path / "catalog.csv"
    status, said = command(capsys, table, "-o", out)
    assert status == 0
    assert f"make figures CATALOG={out} PRESET=compact" in said
    assert "annotation u90: no name: left out: unknown individual" in said
    rows = load_catalog(out)
    assert public.species_name(name) in set(rows["species"])
    assert set(rows["name"]) == {"animal0", "animal1"}
    assert rows["theta"].tolist() == [0, 0, 0.5, 0.5] * len(own)
    assert rows["date"].isna().tolist() == [place == 3 for place in range(len(rows))]
    assert pd.read_csv(out)["file_name"].str.startswith(table.parts[-3]).all()
    status, said = command(capsys, table.parent.parent, "-o", out)  # the folder in its place
    assert (status, f"not the folder: {table}" in said) == (2, True)


@pytest.mark.filterwarnings("ignore")  # the other package's own
@pytest.mark.parametrize(
    ("source", "drawn"), [("NyalaData", nyala), ("HappyWhale", happy_whale), ("BelugaID", beluga)]
)
def test_a_class_of_wildlife_datasets_is_read_under_the_papers_names(source, drawn, tmp_path):
    pytest.importorskip(PACKAGE)
    expected = drawn(tmp_path)
    rows = public.read(source, str(tmp_path))
    public.write(rows, tmp_path / "catalog.csv")
    again = load_catalog(tmp_path / "catalog.csv")
    pd.testing.assert_frame_equal(again, rows)
    assert set(again["individual"]) == expected
    if source == "BelugaID":
        assert again.loc[0, ["x", "y", "w", "h"]].tolist() == [3, 2, 20, 20]
        assert again.loc[0, "date"] == pd.Timestamp("2014-07-01 10:00:00")


@pytest.mark.filterwarnings("ignore")
def test_the_card_names_classes_that_there_are_and_the_files_that_they_read(tmp_path):
    classes = pytest.importorskip(PACKAGE)
    named = " ".join([*SETS["wildlife_datasets"], *SETS["similar_public"]]).split()
    assert [name for name in named if not hasattr(classes, name)] == []
    for row in LILA.itertuples():
        folder = tmp_path / row.Index
        wild_me(folder / ("beluga" * (row.Index == "beluga_whale")) / row.file, row.Index)
        dataset = getattr(classes, row.similar_public.split()[0])(str(folder))
        assert Path(dataset.df["path"][0]).parent.parts[-3] == Path(row.file).parts[0]


def test_what_cannot_be_read_is_told(monkeypatch, tmp_path, capsys):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(public, "import_module", missing)
    words = tmp_path, "-o", tmp_path / "out.csv"
    status, said = command(capsys, "NyalaData", *words)
    assert (status, "NyalaData: no such file or folder" in said) == (2, True)
    assert "a class of wildlife-datasets, first pip install it" in said
    monkeypatch.setattr(public, "import_module", lambda name: object())
    assert "no data set of that name" in command(capsys, "Nyalas", *words)[1]

    class Nyala:
        def __init__(self, folder):
            raise KeyError(3)

    monkeypatch.setattr(public, "import_module", lambda name: type("M", (), {"Nyala": Nyala}))
    status, said = command(capsys, "Nyala", *words)
    assert status == 2
    assert f"can't read {tmp_path} (KeyError(3)); give the folder" in said
