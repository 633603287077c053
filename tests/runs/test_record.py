"""A run's files: changed bytes are refused by name, kept embeddings are computed again."""

import json
import os
import re
import shutil

import numpy as np
import pytest

from miewid_core.chips import ChipStore
from miewid_core.config import fine_tuning, preset
from miewid_core.readers.load import load_catalog
from miewid_core.runs.run import FORMAT, Run, Training, kept_vectors

TINY = preset("demo", image_size=32, batch_size=8, epochs=1)


@pytest.fixture(scope="module")
def trained(small_catalog, tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("trained")
    photos = load_catalog(small_catalog)
    return Training("t", photos, TINY, 0, folder / "runs", folder / "chips").run()


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the finished run."""
    return Run(shutil.copytree(trained.folder, tmp_path / "runs" / trained.folder.name))


def change(path, part=1.0):
    """Turn a bit of a file around, at that part of its length; a second later, for slow clocks."""
    content, state = bytearray(path.read_bytes()), path.stat()
    content[int(part * (len(content) - 1))] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))


def rewrite(run, **changes):
    """Change fields of run.json; None takes one away."""
    told = {key: value for key, value in (run.record | changes).items() if value is not None}
    (run.folder / "run.json").write_text(json.dumps(told))


READERS = {
    "weights.safetensors": Run.load,
    "history.csv": lambda run: run.history,
    "rows.csv": lambda run: run.rows,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_a_changed_file_is_refused_by_name(run, name, part):
    read, path = READERS[name], run.folder / name
    read(run)
    change(path, part)
    text = f"{re.escape(str(path))} is not what its training wrote: delete the folder"
    with pytest.raises(ValueError, match=text):
        read(run)
    change(path, part)
    read(run)
    path.unlink()
    with pytest.raises(ValueError, match=f"{name} is gone: delete the folder .* trained again"):
        read(run)


def test_changed_weights_are_neither_embedded_with_nor_fine_tuned(run, photos, tmp_path):
    change(run.folder / "weights.safetensors", 0.9)
    with pytest.raises(ValueError, match=r"weights\.safetensors is not what its training wrote"):
        run.load()
    where = tmp_path / "runs", tmp_path / "chips"
    with pytest.raises(ValueError, match=r"weights\.safetensors is not what its training wrote"):
        Training("t", photos, fine_tuning(TINY), 0, *where, start=run).run()


def test_the_remedy_helps(run, photos, tmp_path):
    weights = run.weights.read_bytes()
    change(run.folder / "weights.safetensors", 0.9)
    shutil.rmtree(run.folder)
    again = Training("t", photos, TINY, 0, tmp_path / "runs", tmp_path / "chips").run()
    assert again == run
    assert again.weights.read_bytes() == weights


def test_a_run_from_before_there_were_digests_is_read_unchecked(run):
    rewrite(run, format=None, files=None)
    change(run.folder / "history.csv")
    assert len(run.history) == 1
    run.load()


BAD = {
    "a newer version's": ({"format": FORMAT + 1}, "by a newer miewid_core: update this"),
    "a format in words": ({"format": "one"}, "is damaged: delete the folder"),
    "no digests": ({"files": None}, "is damaged: delete the folder"),
    "digests of nothing": ({"files": {}}, r"weights\.safetensors is not what its training wrote"),
    "digests in words": ({"files": "none"}, "is damaged: delete the folder"),
    "no spec": ({"spec": None}, "is damaged"),
    "a spec in words": ({"spec": "none"}, "is damaged"),
}


@pytest.mark.parametrize(("changes", "text"), BAD.values(), ids=BAD)
def test_a_record_that_is_none(run, changes, text):
    rewrite(run, **changes)
    with pytest.raises(ValueError, match=text):
        run.load()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"\xff\xfe", b"null"])
def test_a_record_of_other_bytes(run, content):
    (run.folder / "run.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"run\.json is damaged: delete the folder"):
        run.load()


def test_a_folder_without_a_record(tmp_path):
    with pytest.raises(ValueError, match=r"run\.json is missing: no finished training lies there"):
        Run(tmp_path).load()


def damages(array):
    """Ways to damage a kept array."""
    yield lambda: change(array, 0.0)
    yield lambda: change(array, 0.1)
    yield lambda: change(array)
    yield lambda: array.write_bytes(array.read_bytes()[:200])
    yield lambda: array.write_bytes(b"")
    yield array.unlink


def test_damaged_embeddings_are_computed_again(run, photos, tmp_path):
    calls = []

    def load():
        calls.append(1)
        return run.load()

    def embedded():
        store = ChipStore(tmp_path / "chips", TINY.image_size)
        return kept_vectors(run.weights_digest, load, store, photos, tmp_path / "kept")

    right = embedded()
    (array,) = (tmp_path / "kept").glob("*.safetensors")
    for number, damage in enumerate(damages(array), 1):
        damage()
        for _ in range(2):
            np.testing.assert_array_equal(right, embedded())
        assert len(calls) == 1 + number
