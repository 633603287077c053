"""What is remembered about files: until they change."""

import os

import pandas as pd
import pytest
from PIL import Image

from miewid_core.files import Findings
from miewid_core.readers import checks


def written(path, text="a"):
    path.write_text(text)
    return path


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "kept.json"


def remember(kept, path, finding):
    findings = Findings(kept)
    findings.note(str(path), path.stat(), finding)
    findings.save()


def test_a_finding_is_remembered_until_the_file_changes(tmp_path, kept):
    path = written(tmp_path / "a|b.txt")
    remember(kept, path, [3, 4])
    assert Findings(kept).of(str(path), path.stat()) == [3, 4]
    os.utime(path, (0, 0))
    assert Findings(kept).of(str(path), path.stat()) is None
    written(path, "longer")
    assert Findings(kept).of(str(path), path.stat()) is None


@pytest.mark.parametrize("damage", ["", '{"a": "b', "[1, 2]", "\x00\xff"])
def test_damaged_findings_are_none(tmp_path, kept, damage):
    path = written(tmp_path / "a")
    kept.write_text(damage, encoding="latin-1")
    assert Findings(kept).of(str(path), path.stat()) is None
    remember(kept, path, 1)
    assert Findings(kept).of(str(path), path.stat()) == 1


class TestPhotos:
    @pytest.fixture
    def decoded(self, tmp_path, monkeypatch):
        """Names of the photos that were opened."""
        names, opened = [], checks.open_photo
        monkeypatch.setattr(checks, "CACHE", tmp_path / "cache")
        monkeypatch.setattr(
            checks, "open_photo", lambda path: names.append(path.name) or opened(path)
        )
        return names

    def looked_at(self, folder, verify=True):
        files = pd.Series(["sound.png", "broken.png"])
        return checks.look_at(files, folder.resolve(), verify, False)

    @pytest.fixture
    def folder(self, tmp_path):
        Image.new("RGB", (7, 5)).save(tmp_path / "sound.png")
        for name in ("sound.png", "broken.png"):
            (tmp_path / name).open("ab").close()
            os.utime(tmp_path / name, (1, 1))
        return tmp_path

    def test_a_sound_photo_is_decoded_once(self, folder, decoded):
        first = self.looked_at(folder)
        assert sorted(decoded) == ["broken.png", "sound.png"]
        assert first["width"].iloc[0] == 7
        pd.testing.assert_frame_equal(self.looked_at(folder), first)
        assert decoded[2:] == ["broken.png"]
        Image.new("RGB", (9, 5)).save(folder / "sound.png")
        assert self.looked_at(folder)["width"].iloc[0] == 9

    def test_one_whose_header_was_read_is_decoded_when_that_is_asked_for(self, folder, decoded):
        self.looked_at(folder, verify=False)
        self.looked_at(folder)
        assert decoded.count("sound.png") == 2
