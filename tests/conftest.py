"""What several tests need: a small catalog of drawn photos to train on, a number of threads."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from miewid_core.readers.load import load_catalog


@pytest.fixture(scope="session")
def small_catalog(tmp_path_factory):
    """CSV of 2 species x 3 individuals x 4 photos of 40 px: each individual a colour, and noise."""
    folder = tmp_path_factory.mktemp("small")
    generator = np.random.default_rng(0)
    rows = []
    for species in ("ant", "bee"):
        for name in "abc":
            colour = generator.integers(40, 216, 3)
            for photo in range(4):
                pixels = colour + generator.integers(-40, 41, (40, 40, 3))
                file = f"{species}{name}{photo}.png"
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / file)
                rows.append({"file_name": file, "species": species, "name": name})
    pd.DataFrame(rows).to_csv(folder / "annotations.csv", index=False)
    return folder / "annotations.csv"


@pytest.fixture
def photos(small_catalog):
    """The small catalog, loaded."""
    return load_catalog(small_catalog)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """A headless Chromium; see tests/browser.py."""
    from tests.browser import Browser

    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


@pytest.fixture
def threads():
    """Sets torch's number of threads, which is put back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
