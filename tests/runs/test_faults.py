"""Killed processes, full disks, damaged files: what was whole stays so, a new start mends it."""

import contextlib
import itertools
import multiprocessing
import os
import random
import re
import resource
import signal
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from miewid_core import figures, files, model
from miewid_core.chips import ChipStore
from miewid_core.config import TrainConfig
from miewid_core.demo import draw, draw_animals
from miewid_core.demo.species import SPECIES
from miewid_core.files import replacing
from miewid_core.photos import ChipError
from miewid_core.runs.run import Run
from miewid_core.training import Trainer

# children of a clean process that has imported all this: fast to start, and without our threads
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["pytest", "miewid_core.demo.draw", "miewid_core.figures", "miewid_core.training"]
)
SIZE = 32


def contents(folder):
    """Bytes of all files below a folder, but of locks and of temporary ones, ours and those that
    safetensors makes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith((".part-", ".tmp")) and path.name != "lock"
    }


def started(work, *arguments):
    """A process doing `work`, which has begun."""
    begun = CONTEXT.Event()
    process = CONTEXT.Process(target=_begin, args=(begun, work, *arguments))
    process.start()
    assert begun.wait(120)
    return process


def _begin(begun, work, *arguments):
    begun.set()
    work(*arguments)


def killed(seconds, work, *arguments):
    """Do `work` in a process that is killed after so many seconds; whether it was still at it."""
    process = started(work, *arguments)
    process.join(seconds)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def seconds_for(work, *arguments):
    process = started(work, *arguments)
    begun = time.monotonic()
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - begun


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Catalog rows of 40 boxes in 20 photos."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    rows = []
    for number in range(20):
        path = folder / f"{number}.png"
        Image.fromarray(generator.integers(0, 256, (60, 80, 3), np.uint8)).save(path)
        os.utime(path, (10**9, 10**9))  # long ago: what is found out about it is remembered
        rows += [(str(path), x, 2.0, 30.0, 40.0, theta) for x, theta in ((1.0, 0.0), (40.0, 0.3))]
    return pd.DataFrame(rows, columns=["path", "x", "y", "w", "h", "theta"])


def build(folder, photos):
    ChipStore(folder, SIZE).build(photos)


@pytest.mark.slow
def test_a_killed_build_of_chips_is_completed_to_the_same_bytes(photos, tmp_path):
    build(tmp_path / "whole", photos)
    expected, random_ = contents(tmp_path / "whole"), random.Random(0)
    takes = seconds_for(build, tmp_path / "timed", photos)
    kills = 0
    for number in range(16):
        folder = tmp_path / str(number)
        kills += killed(random_.uniform(0, takes), build, folder, photos)
        left = contents(folder)
        assert left.items() <= expected.items()
        build(folder, photos)
        assert contents(folder) == expected
    assert kills >= 8


def draw_few(folder):
    draw.SPECIES = SPECIES[:1]
    draw_animals(folder, scale=0.01, workers=2)


@pytest.mark.slow
def test_a_killed_drawing_is_completed_to_the_same_bytes(tmp_path, monkeypatch):
    takes = seconds_for(draw_few, tmp_path / "whole")
    expected, random_ = contents(tmp_path / "whole"), random.Random(1)
    assert len(expected) > 10
    monkeypatch.setattr(draw, "SPECIES", SPECIES[:1])
    kills = 0
    for number in range(10):
        folder = tmp_path / str(number)
        for _ in range(2):  # and killed again when it has begun anew
            kills += killed(random_.uniform(0, takes), draw_few, folder)
            left = contents(folder)
            table = [name for name in left if name.endswith(".csv")]
            assert not table or left == expected  # the table comes last: all is there with it
        draw_few(folder)
        assert contents(folder) == expected
        assert not list(folder.rglob(".part-*"))
    assert kills >= 8


def save_figure(number, folder):
    figure = figures.Figure(f"figure {number}", 2)
    figure.subplots().plot([number, 1])
    figures.save(pd.DataFrame({"value": [number] * 2000}), "a", folder, figure)


def save_figures(folder):
    for number in itertools.cycle((0, 1)):
        save_figure(number, folder)


@pytest.mark.slow
def test_a_killed_figure_is_the_earlier_or_the_later_one(tmp_path):
    versions = []
    for number in (0, 1):
        save_figure(number, tmp_path / str(number))
        versions.append(contents(tmp_path / str(number)))
    random_, folder = random.Random(2), tmp_path / "killed"
    for _ in range(16):
        assert killed(random_.uniform(0, 1.5), save_figures, folder)
        for name, content in contents(folder).items():
            assert content in [version[name] for version in versions]
    save_figure(1, folder)
    assert contents(folder) == versions[1]


def test_what_killed_writers_left_is_swept_when_it_is_old(tmp_path):
    old, new = tmp_path / ".part-old.csv", tmp_path / ".part-new.csv"
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (time.time() - 2 * files.LEFT,) * 2)
    with replacing(tmp_path / "a.csv") as temporary:
        temporary.write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".part-new.csv", "a.csv"]


@pytest.mark.parametrize("bit", range(8))
def test_a_changed_chip_is_refused_by_name_and_made_again(photos, tmp_path, bit):
    store = ChipStore(tmp_path, SIZE)
    key = store.build(photos.head(1)).iloc[0]
    right, path = store.path(key).read_bytes(), store.path(key)
    for place in [*range(0, len(right), 37), len(right) - 1]:
        changed = bytearray(right)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        with pytest.raises(ChipError, match=rf"{key}\.safetensors is damaged: .*delete it"):
            store.read(key)
    zeros = bytes(len(right))
    for content in (zeros, right[:-8] + zeros[-8:], right[:1024] + zeros[1024:]):
        path.write_bytes(content)
        with pytest.raises(ChipError, match="damaged"):
            store.read(key)
    path.unlink()
    with pytest.raises(ChipError, match="is gone"):
        store.read(key)
    store.build(photos.head(1))
    assert path.read_bytes() == right


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of its own, and a function that gives it another size in bytes."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def resized(size, first="remount,"):
        options = ["mount", "-t", "tmpfs", "-o", f"{first}size={size}", "tmpfs", str(folder)]
        return subprocess.run(options, capture_output=True, check=False).returncode == 0

    try:
        if not resized(100_000, ""):
            pytest.skip("no disk can be mounted here")
    except FileNotFoundError:
        pytest.skip("there is no mount")
    yield folder, resized
    subprocess.run(["umount", str(folder)], check=True)


FULL = "there is no room for it: free some"


@pytest.mark.slow
def test_chips_on_a_full_disk(photos, tmp_path, small_disk):
    folder, resized = small_disk
    build(tmp_path / "whole", photos)
    with pytest.raises(OSError, match=FULL):
        ChipStore(folder, SIZE).build(photos)
    assert contents(folder).items() <= contents(tmp_path / "whole").items()
    assert not list(folder.rglob(".part-*"))
    assert resized(10**7)
    build(folder, photos)
    assert contents(folder) == contents(tmp_path / "whole")


@pytest.mark.slow
def test_a_checkpoint_on_a_full_disk(small_disk):
    folder, resized = small_disk
    config = TrainConfig(backbone="test_efficientnet", pretrained=False, image_size=SIZE)
    trainer = Trainer(np.array([3, 4]), config, 0, torch.device("cpu"))
    path = folder / "checkpoint.safetensors"
    assert resized(10**8)
    trainer.save(path)
    earlier = path.read_bytes()
    trainer.history.append({"epoch": 1, "loss": 1.0, "rate": 1.0})
    assert resized(int(1.5 * len(earlier)))
    with pytest.raises(OSError, match=FULL):
        trainer.save(path)
    assert path.read_bytes() == earlier
    assert list(folder.iterdir()) == [path]
    trainer.load(path)
    assert trainer.history == []
    assert resized(4 * len(earlier))
    trainer.history.append({"epoch": 1, "loss": 1.0, "rate": 1.0})
    trainer.save(path)
    trainer.load(path)
    assert len(trainer.history) == 1


@pytest.mark.slow
def test_weights_on_a_full_disk(small_disk):
    folder, resized = small_disk
    network = model.MiewIDNet("test_efficientnet")
    preprocess = model.Preprocess(SIZE, (0.1,) * 3, (0.2,) * 3)
    with pytest.raises(OSError, match=FULL):
        model.save(network, preprocess, folder / "weights.safetensors")
    assert not list(folder.iterdir())
    assert resized(10**8)
    model.save(network, preprocess, folder / "weights.safetensors")
    assert model.load(folder / "weights.safetensors")[1] == preprocess


@pytest.mark.slow
def test_a_figure_on_a_full_disk(tmp_path, small_disk):
    folder, _ = small_disk
    save_figure(0, folder)
    earlier = contents(folder)
    filler = tmp_path / "disk" / "filler"
    with contextlib.suppress(OSError):  # until nothing is left
        filler.write_bytes(bytes(10**6))
    with pytest.raises(OSError, match=FULL):
        save_figure(1, folder)
    filler.unlink()
    assert contents(folder) == earlier
    save_figure(1, folder)
    assert contents(folder).keys() == earlier.keys()
    assert all(content != earlier[name] for name, content in contents(folder).items())


WRITERS = {
    "bytes.bin": lambda path: path.write_bytes(bytes(10**6)),
    "numpy.npy": lambda path: np.save(path, np.zeros(10**6)),
    "pandas.csv": lambda path: pd.DataFrame({"a": range(10**5)}).to_csv(path),
    "pillow.png": lambda path: Image.effect_noise((999, 999), 99).save(path),
    "safe.safetensors": lambda path: save_file({"a": torch.zeros(10**6)}, path),
}


def write_beyond_the_limit(folder, answer):
    """Each writer's error where no file may grow beyond 100 kB, which needs no mounted disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, 10**5))
    for name, write in WRITERS.items():
        try:
            with replacing(folder / name) as temporary:
                write(temporary)
        except OSError as error:
            answer.send((name, str(error)))
    answer.send(None)


@pytest.mark.slow
def test_every_writer_says_that_there_is_no_room_and_keeps_the_earlier_file(tmp_path):
    for name in WRITERS:
        (tmp_path / name).write_text("earlier")
    here, there = CONTEXT.Pipe()
    process = started(write_beyond_the_limit, tmp_path, there)
    told = dict(iter(here.recv, None))
    process.join()
    assert told.keys() == WRITERS.keys()
    for name, text in told.items():
        assert re.search(f"{FULL}.*{name}", text)
    assert set(contents(tmp_path).values()) == {b"earlier"}
    assert len(list(tmp_path.iterdir())) == len(WRITERS)


def come_and_go(checkpoint, content):
    while True:
        with replacing(checkpoint) as temporary:
            temporary.write_bytes(content)
        checkpoint.unlink()


def test_progress_is_read_while_the_checkpoint_comes_and_goes(tmp_path):
    """As where a training ends in another process: the file may be gone between any two moments."""
    path = tmp_path / "checkpoint.safetensors"
    save_file({"a": torch.zeros(9)}, path, {"history": "[1, 2, 3]"})
    assert Run(tmp_path).epochs_done == 3
    process = started(come_and_go, path, path.read_bytes())
    try:
        seen = {Run(tmp_path).epochs_done for _ in range(20_000)}
    finally:
        process.kill()
        process.join()
    assert seen <= {0, 3}


NO_PROGRESS = {
    "nothing": b"",
    "a header cut short": (9).to_bytes(8, "little") + b"{",
    "a header larger than the file": (10**18).to_bytes(8, "little"),
    "other bytes": b"\xff" * 99,
}


@pytest.mark.parametrize("content", NO_PROGRESS.values(), ids=NO_PROGRESS)
def test_a_damaged_checkpoint_is_no_progress(tmp_path, content):
    (tmp_path / "checkpoint.safetensors").write_bytes(content)
    assert Run(tmp_path).epochs_done == 0


@pytest.mark.parametrize("told", [None, {"other": "[]"}, {"history": "7"}, {"history": "{nope"}])
def test_a_checkpoint_of_another_history_is_no_progress(tmp_path, told):
    save_file({"a": torch.zeros(9)}, tmp_path / "checkpoint.safetensors", told)
    assert Run(tmp_path).epochs_done == 0


def test_a_folder_in_its_place_is_no_progress(tmp_path):
    (tmp_path / "checkpoint.safetensors").mkdir()
    assert Run(tmp_path).epochs_done == 0
