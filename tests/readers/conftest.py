"""What the tests of several readers need."""

import pytest

from miewid_core.readers import photo_checks


@pytest.fixture
def nothing_remembered(tmp_path, monkeypatch):
    """No photo is known to be sound."""
    monkeypatch.setattr(photo_checks, "CACHE", tmp_path / "cache")
