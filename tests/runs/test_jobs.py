"""Trainings side by side: each once, the same results as one by one, failures said."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from filelock import FileLock
from safetensors.torch import save_file

from miewid_core import training
from miewid_core.config import fine_tuning, preset
from miewid_core.model import MiewIDNet
from miewid_core.runs import jobs, multi_gpu
from miewid_core.runs.jobs import train_all
from miewid_core.runs.run import Training

TINY = preset("demo", image_size=32, batch_size=8, epochs=2, warmup_epochs=0)


@pytest.fixture
def places(tmp_path):
    return tmp_path / "runs", tmp_path / "chips"


@pytest.fixture
def each(photos, places):
    """A training for each species."""
    return [Training(name, rows, TINY, 0, *places) for name, rows in photos.groupby("species")]


def test_a_training_knows_its_folder_before_it_is_trained(each):
    result = each[0].result
    assert not result.finished
    assert (result.epochs_done, each[0].photos_done) == (0, 0)
    assert each[0].run() == result
    assert result.finished
    assert each[0].photos_done == each[0].photos
    assert each[0].photos == 2 * len(each[0].rows)


@pytest.mark.slow
def test_processes_side_by_side_end_as_one_process_does(each, places, tmp_path, threads):
    threads(2)
    beside = train_all([*each, each[0]])
    assert beside[0] == beside[2]
    threads(1)  # as each of the two had
    alone = [replace(own, runs_dir=tmp_path / "alone").run() for own in each]
    for one, other in zip(beside, alone, strict=False):
        assert one.folder.name == other.folder.name
        assert one.weights.read_bytes() == other.weights.read_bytes()


@pytest.mark.slow
def test_what_is_left_of_a_set_is_trained_with_the_threads_of_the_whole(each, places, threads):
    threads(2)
    found = train_all(each)
    before = found[1].weights.read_bytes()
    shutil.rmtree(found[1].folder)
    again = train_all(each)[1]
    assert again.record["threads"] == found[0].record["threads"] == "1"
    assert again.weights.read_bytes() == before


def test_one_by_one_those_under_way_elsewhere_come_last(each, places, threads, monkeypatch):
    threads(1)
    order, real = [], training.fit
    monkeypatch.setattr(
        multi_gpu, "fit", lambda *given, **named: order.append(given[5]) or real(*given, **named)
    )
    first = each[0].result
    first.folder.mkdir(parents=True)
    held = threading.Event()

    def hold():
        with FileLock(first.folder / "lock"):
            held.set()
            time.sleep(5)

    threading.Thread(target=hold).start()
    held.wait()
    found = train_all(each)
    assert all(run.finished for run in found)
    assert [title.split("] ")[1] for title in order] == [each[1].title, each[0].title]


def test_any_executor_will_do_and_each_training_is_done_once(each, places, monkeypatch):
    calls, real = [], training.fit
    monkeypatch.setattr(
        multi_gpu, "fit", lambda *given, **named: calls.append(1) or real(*given, **named)
    )
    with ThreadPoolExecutor(1) as executor:
        found = train_all([each[1], each[0], each[1]], executor)
    assert len(calls) == 2
    assert found[0] == found[2] == each[1].result
    monkeypatch.setattr(multi_gpu, "fit", None)
    assert train_all(each) == [found[1], found[0]]


@pytest.mark.slow
def test_a_fine_tuning_waits_for_its_start_and_differs_by_it(each, places):
    tuned = [
        replace(each[0], title="tuned", config=fine_tuning(TINY), start=replace(each[1], seed=seed))
        for seed in (0, 1)
    ]
    found = train_all(tuned)
    assert found[0] != found[1]
    assert found[0].record["spec"]["start"] == tuned[0].start.result.folder.name
    assert tuned[0].start.result.finished


def test_what_a_training_raises_comes_through_and_the_others_do_not_begin(each, places):
    diverging = preset(
        "demo", image_size=32, batch_size=8, epochs=9, peak_rate=1e30, start_rate=1e30
    )
    broken = replace(each[0], title="broken", config=diverging)
    with ThreadPoolExecutor(1) as executor, pytest.raises(FloatingPointError, match="the loss is"):
        train_all([broken, *each], executor)
    assert not each[1].result.finished


def test_trainings_of_one_process_take_turns_with_the_asked_threads(each, places, threads):
    threads(3)
    with ThreadPoolExecutor(2) as executor:
        found = train_all(each, executor)
    assert [run.record["threads"] for run in found] == ["3", "3"]
    with ThreadPoolExecutor(1) as executor:
        alone = train_all([replace(own, runs_dir=places[0] / "alone") for own in each], executor)
    for one, other in zip(found, alone, strict=True):
        assert one.weights.read_bytes() == other.weights.read_bytes()


def test_workers_that_do_not_share_the_folder_are_noticed(each, places, monkeypatch):
    monkeypatch.setattr(jobs, "DELAY", 0)
    monkeypatch.setattr(Training, "run", lambda *_: None)
    with (
        ThreadPoolExecutor(1) as executor,
        pytest.raises(RuntimeError, match=r"2 trainings have ended, but .* has no result"),
    ):
        train_all(each, executor)


def test_what_a_worker_is_sent_is_the_same_training(each, places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file(MiewIDNet(TINY.backbone).backbone.state_dict(), "start.safetensors")
    config = preset("demo", image_size=32, epochs=1, pretrained="start.safetensors")
    job, sent = replace(each[1], config=config), []

    class Noting(ThreadPoolExecutor):
        def submit(self, work, training, *more):
            sent.append(training)
            return super().submit(work, training, *more)

    with Noting(1) as executor:
        assert train_all([job], executor) == [job.result]
    assert sent[0].folder == job.folder.absolute()
    assert sent[0].config.pretrained == str(tmp_path / "start.safetensors")
    assert set(sent[0].rows) < set(job.rows)


@pytest.mark.slow
def test_a_killed_worker_is_said_with_the_remedy(each, places, threads):
    threads(2)
    config = preset("demo", image_size=32, epochs=500)
    long = [replace(own, config=config) for own in each]
    kill = ThreadPoolExecutor(1).submit(_kill_a_child_once_it_trains, long)
    with pytest.raises(RuntimeError, match="want of memory: lower batch_size"):
        train_all(long)
    kill.result()
    assert any(job.result.epochs_done for job in long)


def _kill_a_child_once_it_trains(long):
    deadline = time.monotonic() + 60
    while not any(job.result.epochs_done for job in long):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # other children are helpers of loky's and multiprocessing's, some of them of earlier tests
    workers = [c for c in psutil.Process().children() if "popen_loky" in " ".join(c.cmdline())]
    workers[-1].send_signal(signal.SIGKILL)


ORPHANING = """
import signal
import sys
from pathlib import Path
import torch
from miewid_core.config import preset
from miewid_core.readers.load import load_catalog
from miewid_core.runs.jobs import train_all
from miewid_core.runs.run import Training

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
torch.set_num_threads(2)
photos = load_catalog(sys.argv[1])
long = preset("demo", image_size=32, batch_size=8, epochs=5000)
each = photos.groupby("species")
places = Path("runs"), Path("chips")
train_all([Training(name, rows, long, seed, *places) for name, rows in each for seed in (0, 1)])
"""


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_a_killed_or_interrupted_parent(small_catalog, tmp_path, sent):
    """A Ctrl-C, or a notebook's stop button, reaches the workers too; none takes another job."""
    command = [sys.executable, "-c", ORPHANING, str(small_catalog)]
    places = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    group = {"start_new_session": True}
    with subprocess.Popen(command, cwd=tmp_path, env=places, **group) as parent:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("runs/*/checkpoint.safetensors")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        workers = psutil.Process(parent.pid).children(recursive=True)
        if sent == signal.SIGKILL:
            parent.kill()
        else:
            os.killpg(parent.pid, sent)
        _, alive = psutil.wait_procs([psutil.Process(parent.pid), *workers], timeout=30)
        for process in alive:
            process.kill()
    assert len(workers) >= 2
    assert not alive
