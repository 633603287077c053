"""Catalogs that the tests of the readers begin with."""

import numpy as np
import pandas as pd
from PIL import Image

WIDTH, HEIGHT = 40, 30


def draw(path, orientation=1, size=(WIDTH, HEIGHT), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)


def some_rows():
    """Two species, each with two individuals of two photos; the boxes are whole pixels."""
    labels = [(s, n, p) for s in ("ant", "bee") for n in ("007", "Zoë") for p in (1, 2)]
    return pd.DataFrame(
        [
            {
                **{"file_path": f"{s}/{n}/{p}.jpg", "species": s, "name": n},
                **{"viewpoint": "left", "encounter": f"e{p}", "date": f"2024-05-0{p}"},
                **{"x": "1", "y": "2", "w": "30", "h": "20", "theta": "0"},
            }
            for s, n, p in labels
        ]
    )


def boxes(rows):
    return rows[["x", "y", "w", "h"]].astype(float).to_numpy().tolist()


def as_coco(rows, style):
    """Wildbook's export (names on annotations), and the MiewID repository's (in tables)."""
    wildbook = style == "wildbook"
    key = "uuid" if wildbook else "id"
    coco = {"images": [], "annotations": [], "individuals": [], "categories": []}
    for place, row in enumerate(rows.itertuples()):
        day = {"date_captured" if wildbook else "datetime": row.date}
        coco["images"].append({key: f"i{place}", "file_name": row.file_path, **day})
        entry = {
            **{key: f"a{place}", f"image_{key}": f"i{place}", "bbox": boxes(rows)[place]},
            **{"viewpoint": row.viewpoint, "encounter_id": row.encounter, "theta": 0.0},
        }
        labels = {"name": row.name, "species": row.species}
        links = {"individual_uuid": f"n{place}", "category_id": place}
        coco["annotations"].append(entry | (labels if wildbook else links))
        coco["individuals"].append({"uuid": f"n{place}", "name": row.name})
        coco["categories"].append({"id": place, "species": row.species})
    return coco
