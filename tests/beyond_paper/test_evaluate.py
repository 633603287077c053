"""A catalog taken whole as the test set, against the authors' evaluation written out slowly."""

import re

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from miewid_core import model
from miewid_core.__main__ import main
from miewid_core.beyond_paper import evaluate
from miewid_core.model import MiewIDNet, Preprocess

SIZE = 64


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A test split as the repository of the released model has it, and a network with its card."""
    monkeypatch.setattr(evaluate, "CACHE", tmp_path / "cache")
    generator = np.random.default_rng(0)
    coats = generator.integers(40, 216, (9, 3))
    (tmp_path / "photos").mkdir()
    rows = []
    for number in range(31):
        pixels = coats[number % 9] + generator.integers(-70, 71, (90, 50, 3))
        name = f"{number:012d}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / "photos" / name)
        own = {"theta": 0, "viewpoint": "up", "name": 100 + number % 9, "file_name": name}
        own |= {"species": "beluga_whale", "file_path": f"/datasets/beluga-440/{name}"}
        rows.append(own | {"x": 0, "y": 0, "w": 50, "h": 90})
    table = tmp_path / "test.csv"
    rows.append(rows[-1] | {"name": 999, "h": 80})  # an individual with one photo
    pd.DataFrame(rows).to_csv(table)  # with an index, as theirs
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MiewIDNet("test_efficientnet", False, SIZE).eval()
    preprocess = Preprocess(SIZE, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    model.save(network, preprocess, tmp_path / "w" / "model.safetensors")
    return table, tmp_path / "w", network


def slowly(table, network, plugin):
    """Rank-1, -5, -10, -20 and mAP in percent: one query after another, by full sorts."""
    rows, vectors = pd.read_csv(table), []
    for row in rows.itertuples():
        photo = Image.open(table.parent / "photos" / row.file_name).convert("RGB")
        chip = photo.crop((row.x, row.y, row.x + row.w, row.y + row.h))
        if plugin:
            chip = Image.fromarray(cv2.resize(np.asarray(chip), (SIZE, SIZE)))
        chip = np.asarray(chip.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
        pixels = torch.tensor((chip / 255 - 0.5) / 0.2, dtype=torch.float32).permute(2, 0, 1)
        with torch.inference_mode():
            vectors.append(network(pixels[None])[0].double().numpy())
    found = []
    for query, name in enumerate(rows["name"]):
        others = [other for other in range(len(rows)) if other != query]
        cosines = [
            vectors[query] @ vectors[other] / np.linalg.norm(vectors[other]) for other in others
        ]
        right = [rows["name"][others[place]] == name for place in np.argsort(cosines)[::-1]]
        if any(right):
            places = np.flatnonzero(right)
            precision = np.mean([(nth + 1) / (place + 1) for nth, place in enumerate(places)])
            found.append([*(places[0] < k for k in (1, 5, 10, 20)), precision])
    return len(found), 100 * np.mean(found, axis=0)


@pytest.mark.parametrize("resizing", ["card", "plugin"])
def test_a_published_split_is_evaluated_as_by_its_makers(published, capsys, resizing):
    table, weights, network = published
    if resizing == "plugin":  # and as a run's folder has it
        (weights / "model.safetensors").rename(weights / "weights.safetensors")
    words = ["--photos-dir", str(table.parent / "photos"), "--resizing", resizing]
    main(["evaluate", str(table), str(weights), *words])
    said = capsys.readouterr().out
    heads, row, *_, last = said.strip().splitlines()
    assert [*heads.split()][:3] == ["species", "queries", "individuals"]
    count, expected = slowly(table, network, resizing == "plugin")
    assert count == 31
    assert row.split()[:4] == ["beluga", "whale", "31", "9"]
    got = [float(value) for value in re.findall(r"([\d.]+) \([\d.]+ to [\d.]+\)", row)]
    np.testing.assert_allclose(got, expected, atol=0.06)
    assert 10 < got[0] < 100
    assert row.split()[-1] == "72.1"  # Table 2's
    assert last.endswith("no other photo: 1.")


def test_an_interval_is_that_of_its_values_over_individuals(published):
    ranks = pd.DataFrame(
        {
            "species": ["ant"] * 4 + ["bee"] * 5,
            "individual": [*"aabb", *"ccddx"],
            "relevant": [1] * 8 + [0],
            "first_match_rank": pd.array([1, 2, 6, 1, 1, 1, 30, 2, None], "Int64"),
            "average_precision": [1, 0.5, 1 / 6, 1, 1, 1, 1 / 30, 0.5, np.nan],
        }
    )
    table = evaluate.measures(ranks).set_index("species")
    assert table.loc["ant", ["top_1", "top_5", "top_10"]].tolist() == [50, 75, 100]
    assert table.loc["bee", ["queries", "individuals"]].tolist() == [4, 2]
    assert table.loc["mean", "top_20"] == 87.5
    assert table.loc["mean", "mAP"] == pytest.approx(100 * (8 / 3 + 2.5333333) / 8)
    for name in ("top_1", "mAP"):
        ends = table[[f"{name}_low", name, f"{name}_high"]]
        assert (ends.diff(axis=1).iloc[:, 1:] > 0).all(axis=None)
