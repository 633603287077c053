"""Public sets by the real wildlife-datasets, where it is installed, on folders that are drawn."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from miewid_core.paper import public
from miewid_core.readers.load import load_catalog


def photo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([*path.stem.encode()]).integers(0, 255, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def nyala(folder):
    for number in range(8):
        side = ("left", "right")[number % 2]
        photo(folder / "main" / "Nyala" / "train" / str(7 + number // 4) / f"{number}_{side}.jpg")
    return {"nyala/7/left", "nyala/7/right", "nyala/8/left", "nyala/8/right"}


def happy_whale(folder):
    rows = [(f"f{number}.jpg", "fin_whale", "f1") for number in range(2)]
    rows += [(f"k{number}.jpg", "killer_whale", "k1") for number in range(2)]
    for name, *_ in rows:
        photo(folder / "train_images" / name)
    photo(folder / "test_images" / "c.jpg")  # of nobody known
    columns = ["image", "species", "individual_id"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "train.csv", index=False)
    return {"fin_whale/f1", "orca/k1"}  # as Table 2 calls killer whales


def beluga(folder):
    inside = folder / "beluga" / "beluga.coco"
    for name in ("1.jpg", "2.jpg"):
        photo(inside / "images" / "train2022" / name)
    corners = [3.0, 2.0, 23.0, 2.0, 23.0, 22.0, 3.0, 22.0]
    whale = {"name": "whale001", "category_id": 1, "viewpoint": "top", "segmentation": [corners]}
    told = {
        "annotations": [whale | {"image_id": number} for number in (1, 2)],
        "images": [
            {
                "id": number,
                "file_name": f"{number}.jpg",
                "date_captured": f"2020-07-0{number} 10:00",
            }
            for number in (1, 2)
        ],
        "categories": [{"id": 1, "name": "beluga_whale", "supercategory": "animal"}],
    }
    (inside / "annotations").mkdir()
    (inside / "annotations" / "instances_train2022.json").write_text(json.dumps(told))
    return {"beluga_whale/whale001"}


@pytest.mark.filterwarnings("ignore")  # rows without a name, and the other package's own
@pytest.mark.parametrize(
    ("source", "drawn"), [("NyalaData", nyala), ("HappyWhale", happy_whale), ("BelugaID", beluga)]
)
def test_a_public_set_becomes_a_catalog_under_the_papers_names(source, drawn, tmp_path):
    pytest.importorskip("wildlife_datasets.datasets")
    expected = drawn(tmp_path)
    table = public.public_catalog(source, tmp_path)
    table.to_csv(tmp_path / "catalog.csv", index=False)
    rows = load_catalog(tmp_path / "catalog.csv", sides_differ=["nyala"] * (source == "NyalaData"))
    assert set(rows["individual"]) == expected
    assert not table["file_name"].str.startswith("/").any()
    if source == "BelugaID":
        assert rows.loc[0, ["x", "y", "w", "h"]].tolist() == [3, 2, 20, 20]
        assert rows.loc[0, "date"] == pd.Timestamp("2020-07-01 10:00:00")


def test_what_is_not_there_is_told(monkeypatch, tmp_path):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(public, "import_module", missing)
    with pytest.raises(ValueError, match="pip install wildlife-datasets"):
        public.public_catalog("NyalaData", tmp_path)
    monkeypatch.setattr(public, "import_module", lambda name: object())
    with pytest.raises(ValueError, match="no data set 'Nyalas'"):
        public.public_catalog("Nyalas", tmp_path)
