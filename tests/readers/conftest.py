"""What the tests of several readers need."""

import pytest

from miewid_core.readers import checks


@pytest.fixture
def nothing_remembered(tmp_path, monkeypatch):
    """No photo is known to be sound."""
    monkeypatch.setattr(checks, "CACHE", tmp_path / "cache")
