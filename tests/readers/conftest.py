"""What the tests of several readers need."""

import pytest

from miewid_core.readers import checks
from tests.readers.made import draw, some_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The photos of `some_rows`, each of its own pixels."""
    folder = tmp_path_factory.mktemp("photos")
    for number, file in enumerate(some_rows()["file_path"]):
        draw(folder / file, seed=number)
    return folder


@pytest.fixture
def nothing_remembered(tmp_path, monkeypatch):
    """No photo is known to be sound."""
    monkeypatch.setattr(checks, "CACHE", tmp_path / "cache")
