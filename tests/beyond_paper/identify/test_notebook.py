"""Notebook 12 on the fewest photos."""

import itertools

import numpy as np
import papermill
import pytest
from PIL import Image

from miewid_core import model
from miewid_core.files import ROOT


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
