"""Writes that are whole or absent, hashes of content, and arrays kept with a checksum."""

import hashlib
import importlib.util
import itertools
import os
import shutil
import stat
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from miewid_core import files
from miewid_core.files import (
    digest,
    file_digest,
    read_checked,
    replacing,
    write_checked,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_replaces_the_file_at_once(tmp_path):
    path = tmp_path / "one" / "two" / "a.csv"  # folders are made
    for before, after in ((None, "first"), ("first", "second")):
        with replacing(path) as temporary:
            temporary.write_text(after)
            assert before is None or path.read_text() == before
            assert temporary.parent == path.parent
            assert temporary.suffix == ".csv"
        assert path.read_text() == after
    assert names(path.parent) == ["a.csv"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644  # others can read it


@pytest.mark.parametrize("earlier", ["before", None])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_all_as_it_was(tmp_path, earlier, error):
    path = tmp_path / "a.csv"
    if earlier:
        path.write_text(earlier)

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == (["a.csv"] if earlier else [])
    assert not earlier or path.read_text() == earlier


def test_contents_are_on_disk_before_the_name_is(tmp_path, monkeypatch):
    """Else a power cut may leave the new name with nothing in it."""
    done, sync, replace = [], os.fsync, files.Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("sync"), sync(handle)))
    monkeypatch.setattr(
        files.Path, "replace", lambda self, to: (done.append("name"), replace(self, to))
    )
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("x")
    assert done == ["sync", "name"]


def test_writers_of_one_file_at_the_same_time_leave_one_whole_content(tmp_path):
    contents = [letter * 50_000 for letter in "abcdef"]

    def write(content):
        for _ in range(5):
            with replacing(tmp_path / "a") as temporary:
                temporary.write_text(content)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if (tmp_path / "a").exists():
            assert (tmp_path / "a").read_text() in contents
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() in contents


parts = st.lists(st.text(max_size=4), max_size=4)


@given(parts, parts)
def test_digests_are_equal_for_equal_parts_only(one, other):
    assert (digest(*one) == digest(*other)) == (one == other)


def test_digest_by_hand():
    by_hand = hashlib.sha256((2).to_bytes(8, "little") + "é".encode() + bytes(8)).hexdigest()
    assert digest("é", "") == digest("é".encode(), b"") == by_hand
    splits = [digest("abcd"[:i], "abcd"[i:]) for i in range(5)]
    assert all(a != b for a, b in itertools.combinations(splits, 2))


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_file_digest_is_sha256_of_the_bytes(tmp_path, size):
    content = bytes(i % 251 for i in range(size))
    (tmp_path / "a").write_bytes(content)
    assert file_digest(tmp_path / "a") == hashlib.sha256(content).hexdigest()


ARRAYS = {
    "matrix": np.arange(12, dtype=np.float32).reshape(3, 4).T,  # not contiguous
    "number": np.array(7, dtype=np.int64),
    "nothing": np.zeros((0, 5)),
}


def test_checked_arrays_come_back_with_their_facts(tmp_path):
    write_checked(tmp_path / "a", ARRAYS, history="[1, 2]", other="é")
    arrays, facts = read_checked(tmp_path / "a")
    assert facts == {"history": "[1, 2]", "other": "é"}
    assert arrays.keys() == ARRAYS.keys()
    for name, array in arrays.items():
        assert array.dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(array, ARRAYS[name], strict=True)


def test_a_changed_bit_of_every_byte_and_every_cut_is_noticed(tmp_path):
    path = tmp_path / "a"
    write_checked(path, ARRAYS, history="[1, 2]")
    right = path.read_bytes()
    for place in range(len(right)):
        changed = bytearray(right)
        changed[place] ^= 1 << place % 8
        for damaged in (changed, right[:place]):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=f"{path} is damaged"):
                read_checked(path)


def test_arrays_without_a_checksum_are_refused(tmp_path):
    save_file({"a": np.zeros(3)}, tmp_path / "a")
    with pytest.raises(ValueError, match="its checksum is another"):
        read_checked(tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        read_checked(tmp_path / "b")


@pytest.fixture
def read_from(tmp_path, monkeypatch):
    """Reads files.py as it stands in a folder: a checkout, or where packages are installed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MIEWID_CACHE", raising=False)
    monkeypatch.chdir(tmp_path)

    def read(folder):
        copy = folder / "miewid_core" / "files.py"
        copy.parent.mkdir(parents=True)
        shutil.copy(files.__file__, copy)
        spec = importlib.util.spec_from_file_location("files_elsewhere", copy)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.ROOT, module.CACHE

    return read


class TestPlaces:
    def test_of_a_checkout(self, read_from, tmp_path):
        folder = tmp_path / "project"
        folder.mkdir()
        (folder / "pyproject.toml").touch()
        assert read_from(folder) == (folder, folder / ".cache")

    @pytest.mark.skipif(sys.platform != "linux", reason="each system has its own place for caches")
    def test_installed_it_keeps_caches_with_the_users_others(self, read_from, tmp_path):
        places = read_from(tmp_path / "site-packages")
        assert places == (tmp_path, tmp_path / "caches" / "miewid")

    @pytest.mark.parametrize("installed", [True, False])
    def test_the_user_names_another(self, read_from, tmp_path, monkeypatch, installed):
        monkeypatch.setenv("MIEWID_CACHE", "~/kept")
        if not installed:
            (tmp_path / "pyproject.toml").touch()
        assert read_from(tmp_path)[1] == tmp_path / "home" / "kept"
