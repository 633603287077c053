"""Trainings on a real Dask scheduler and its workers, which are killed; and what is said if not."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from distributed import Client

from miewid_core.paper.study import open_study
from miewid_core.runs import jobs
from miewid_core.runs.jobs import workers_of

# distributed closes its sockets from other threads, later than the test that opened them
pytestmark = pytest.mark.filterwarnings("ignore:unclosed.*socket:ResourceWarning")
EPOCHS = 60


class Cluster:
    """A scheduler and workers, each a process of its own on this computer."""

    def __init__(self, folder):
        self.folder, self.processes = folder, {}
        self.start("scheduler", "--port", "0", "--host", "127.0.0.1")
        self.address = self.wait_for("scheduler", "Scheduler at:").split()[-1]

    def start(self, name, *arguments):
        module = f"distributed.cli.dask_{'scheduler' if name == 'scheduler' else 'worker'}"
        with (self.folder / f"{name}.log").open("w") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments, "--no-dashboard"],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    def start_worker(self, name, threads=1):
        limits = "--nthreads", str(threads), "--no-nanny", "--memory-limit", "0"
        self.start(name, self.address, *limits, "--name", name)
        self.wait_for(name, "Registered to:")

    def wait_for(self, name, words):
        for _ in range(600):
            for line in (self.folder / f"{name}.log").read_text().splitlines():
                if words in line:
                    return line
            assert self.processes[name].poll() is None
            time.sleep(0.1)
        raise TimeoutError(f"{name} never said {words}")

    def kill(self, name):
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.fixture
def cluster(tmp_path):
    made = Cluster(tmp_path)
    yield made
    for name in list(made.processes)[::-1]:
        made.kill(name)


@pytest.fixture
def study(small_catalog, tmp_path, monkeypatch):
    """A study of the small catalog by its own runs folder, given relative to where it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("miewid_core.paper.study.CACHE", tmp_path)

    def open_with(scheduler, runs_dir):
        given = {"image_size": 32, "epochs": EPOCHS, "runs_dir": runs_dir}
        return open_study(str(small_catalog), scheduler=scheduler, **given)

    return open_with


@pytest.fixture
def two_threads(threads):
    threads(2)


@contextlib.contextmanager
def watched(runs):
    """Notes, until the block ends, how many epochs each run had done at each look."""
    seen, over = {run: [0] for run in runs}, threading.Event()

    def look():
        while not over.wait(0.05):
            for run, counts in seen.items():
                counts.append(EPOCHS if run.finished else run.epochs_done)

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            yield seen
        finally:  # a failure in the block would wait for the look, which would never end
            over.set()
        looking.result()


@pytest.mark.slow
def test_a_killed_worker_loses_no_training_and_no_bit(
    cluster, study, two_threads, capfd, monkeypatch
):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    for name in ("one", "two"):
        cluster.start_worker(name)
    there = study(cluster.address, "there")
    wanted = [there.multi(), *there.single().values()]
    asked = [training.result for training in wanted]
    with watched(asked) as seen, ThreadPoolExecutor(1) as pool:
        training = pool.submit(there.run, wanted)
        while sum(counts[-1] >= 3 for counts in seen.values()) < 2:
            assert not training.done() or training.result()
            time.sleep(0.02)
        cluster.kill("one")
        assert sum(run.finished for run in asked) < 2  # each worker had one of the other two
        found = training.result(timeout=300)
    assert found == asked
    for counts in seen.values():  # none began anew: what the dead worker had done was gone on from
        assert counts == sorted(counts)
    assert "3 of 3 done" in capfd.readouterr().err  # the bar here, whose photos lie there
    here = study("", "here")
    alone = [replace(own, runs_dir=here.runs_dir, chips_dir=here.chips_dir).run() for own in wanted]
    for one, other in zip(found, alone, strict=True):
        assert one.folder.name == other.folder.name
        assert one.record["threads"] == other.record["threads"] == "2"
        assert one.weights.read_bytes() == other.weights.read_bytes()


@pytest.mark.slow
def test_what_goes_wrong_on_a_cluster_is_said(cluster, study, capfd):
    there = study(cluster.address, "there")
    broken = there.training(there.train, "broken", peak_rate=1e30, start_rate=1e30)
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(there.run, [broken])
        until(lambda: f"{cluster.address} has no worker yet" in capfd.readouterr().out)
        cluster.start_worker("wide", threads=2)
        with pytest.raises(FloatingPointError, match="the loss is"):
            training.result(timeout=300)
    assert (cluster.folder / "wide.log").read_text().count("Compute Failed") == 1  # no second try
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(there.run, [there.multi()])
        run = there.multi().result
        until(lambda: run.epochs_done)
        assert "1 workers of" in capfd.readouterr().out
        cluster.kill("scheduler")
        with pytest.raises(RuntimeError, match=r"the scheduler at tcp://\S+ is gone"):
            training.result(timeout=300)


def until(holds):
    """Wait until `holds()`."""
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1:9",
        "host",
        "tcp://127.0.0.1:port",
        "ftp://a:1",
        "tls://127.0.0.1:9",
        "inproc://a",
    ],
)
def test_a_scheduler_that_is_not_there_is_said_soon(address, monkeypatch):
    monkeypatch.setattr(jobs, "ANSWER", 0.5)
    with (
        pytest.raises(ValueError, match=f"scheduler: none answers at '{address}'"),
        workers_of(address),
    ):
        pytest.fail("an executor on nothing")


def test_no_client_stays_open_that_found_no_scheduler(monkeypatch):
    # collected while the next one started, it waited for a lock of that one, for ever
    monkeypatch.setattr(jobs, "ANSWER", 0.5)
    with (
        pytest.raises(ValueError, match="none answers") as caught,
        workers_of("tcp://127.0.0.1:port"),
    ):
        pytest.fail("an executor on nothing")
    assert caught.value.__cause__  # a notebook keeps the last error, and all that it refers to
    clients = [each for each in gc.get_objects() if issubclass(type(each), Client)]
    assert {client.status for client in clients} <= {"closed"}


def test_without_distributed_its_installation_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(ValueError, match=r"pip install -e \.\[dask\]"),
        workers_of("tcp://host:8786"),
    ):
        pytest.fail("an executor on nothing")


def test_no_scheduler_is_no_executor():
    with workers_of("") as executor:
        assert executor is None
