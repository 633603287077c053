"""Trainings asked for: counted before they start, and done side by side."""

import dataclasses
import json
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch
from filelock import Timeout
from loky import ProcessPoolExecutor
from tqdm import tqdm

from miewid_core.chips import ChipStore
from miewid_core.config import TrainConfig
from miewid_core.files import digest
from miewid_core.machine import default_device, threads
from miewid_core.runs.run import Run, run_of, spec, train

POLL = 1.0  # seconds between two looks at the trainings under way
DELAY = 60.0  # seconds after which a network file system shows what another computer wrote
MOST = 4  # trainings at once on one computer: each holds a network and its batches in memory
TURN = threading.Lock()  # of trainings in a process, whose random generator and threads they share
READ = ["annotation_id", "species", "individual", "path", "x", "y", "w", "h", "theta"]


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """A training that a notebook asks for; `start` is the one whose network it fine-tunes."""

    title: str
    rows: pd.DataFrame
    config: TrainConfig
    seed: int
    start: "Job | None" = None

    def __post_init__(self) -> None:
        if self.rows.empty:
            raise ValueError(f"{self.title}: no annotation to train on; does the split leave any?")

    @cached_property
    def key(self) -> str:
        """Equal for jobs of the same data, configuration and seed, without reading a photo."""
        rows = self.rows[["annotation_id", "individual"]]
        if not rows["annotation_id"].is_monotonic_increasing:  # a split's rows are
            rows = rows.sort_values("annotation_id")
        labels = (json.dumps(rows[column].tolist()) for column in rows)
        return digest(repr((self.config, self.seed)), self.start.key if self.start else "", *labels)

    @property
    def photos(self) -> int:
        """Photos that pass through the network, all epochs together."""
        return len(self.rows) * self.config.epochs

    def run(self, runs_dir: Path, chips_dir: Path) -> Run:
        """The run of this job, which may not be finished or even begun."""
        rows = self.rows.sort_values("annotation_id", ignore_index=True)
        keys = ChipStore(chips_dir, self.config.image_size).keys(rows)
        start = self.start and self.start.run(runs_dir, chips_dir)
        what = spec(keys.tolist(), rows["individual"].tolist(), self.config, self.seed, start)
        return run_of(what, runs_dir)

    def train(self, runs_dir: Path, chips_dir: Path, wait: bool = True) -> Run:
        """Train, or find it trained; see `runs.train`."""
        start = self.start and self.start.run(runs_dir, chips_dir)
        where = runs_dir, chips_dir, self.title, start
        return train(self.rows, self.config, self.seed, *where, wait)


def train_all(
    jobs: Sequence[Job], runs_dir: Path, chips_dir: Path, executor: futures.Executor | None = None
) -> list[Run]:
    """The finished runs of `jobs`, in order; what is not yet trained is trained, each once.

    `executor`: where the trainings run, side by side; any of concurrent.futures, whose workers
    share both folders and do one training at a time, with as many threads as this process. None:
    processes of this computer, as many as it has cores for, or one after the other on its GPU.
    Raises what a training raises (see `training.fit`), and RuntimeError when a worker dies, or
    shares no folder with this process; what was trained is kept then.
    """
    starts = [job.start for job in jobs if job.start]
    for size, sized in groupby(jobs, lambda job: job.config.image_size):
        # made once here, in parallel, not by each training for itself
        photos = pd.concat([job.rows for job in sized]).drop_duplicates("annotation_id")
        ChipStore(chips_dir, size).build(photos)
    for wave in (starts, jobs):  # a fine-tuning waits for the network that it goes on from
        asked = [job.run(runs_dir, chips_dir) for job in wave]
        pending = {run: job for run, job in zip(asked, wave, strict=True) if not run.finished}
        _train(pending, len(set(asked)), runs_dir, chips_dir, executor)
    return asked


def _train(
    pending: dict[Run, Job],
    asked: int,
    runs_dir: Path,
    chips_dir: Path,
    executor: futures.Executor | None,
) -> None:
    cores = torch.get_num_threads()
    # by what is asked, not by what is left: fewer threads round otherwise, and a set of trainings
    # that was interrupted is to end with the same bits
    count = 1 if default_device().type == "cuda" else min(asked, cores, MOST)
    if executor is None and count < 2:
        _train_in_turn(pending, runs_dir, chips_dir)
    elif executor is None and pending:
        with _processes(min(count, len(pending)), cores // count) as pool:
            try:
                _train_beside(pending, runs_dir, chips_dir, pool, cores // count)
            except KeyboardInterrupt:  # the workers got it too, but would go on with other jobs
                pool.shutdown(kill_workers=True)
                raise
    elif pending:
        _train_beside(pending, runs_dir, chips_dir, executor, cores)


def _train_in_turn(pending: dict[Run, Job], runs_dir: Path, chips_dir: Path) -> None:
    """One after the other; last those that another process has under way: two share the work."""
    left, passed = deque(pending.values()), 0
    while left:
        job = left.popleft()
        title = f"[{len(pending) - len(left)}/{len(pending)}] {job.title}"
        try:
            every_one = passed > len(left)  # is under way elsewhere
            dataclasses.replace(job, title=title).train(runs_dir, chips_dir, wait=every_one)
            passed = 0
        except Timeout:
            left.append(job)
            passed += 1


def _train_beside(
    pending: dict[Run, Job],
    runs_dir: Path,
    chips_dir: Path,
    executor: futures.Executor,
    each: int,
) -> None:
    where = runs_dir.absolute(), chips_dir.absolute(), each  # workers may stand elsewhere
    trainings = [executor.submit(_train_there, _portable(job), *where) for job in pending.values()]
    try:
        _follow(trainings, pending)
    finally:  # after an error or a Ctrl-C no other one begins
        for training in trainings:
            training.cancel()
    deadline = time.monotonic() + DELAY
    while lost := [run.folder for run in pending if not run.finished]:
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"{len(lost)} trainings have ended, but {lost[0]} has no result: do all workers "
                "see this folder, under the same path? Give a runs_dir that they share"
            )
        time.sleep(POLL)


def _portable(job: Job) -> Job:
    """A job without the columns that no training reads, and without a path of this process."""
    weights, start = job.config.pretrained, job.start and _portable(job.start)
    if isinstance(weights, str):
        weights = str(Path(weights).absolute())
    config = dataclasses.replace(job.config, pretrained=weights)
    return dataclasses.replace(job, rows=job.rows[READ], config=config, start=start)


def _train_there(job: Job, runs_dir: Path, chips_dir: Path, count: int) -> None:
    """Train in a worker, with as many threads as here: with others sums are rounded otherwise."""
    with TURN, threads(count):
        job.train(runs_dir, chips_dir)


def _processes(count: int, threads: int) -> ProcessPoolExecutor:
    """Processes that share this computer's cores; two of one thread beat one of two threads."""
    quiet = {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": str(threads)}  # the bar is their parent's
    # of loky, as multiprocessing's run the reader's own script once more in each process
    return ProcessPoolExecutor(count, env=quiet, initializer=_end_with, initargs=(os.getpid(),))


def _end_with(parent: int) -> None:
    """End this process once its parent was killed: loky's would wait for work for ever."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _follow(trainings: Sequence[futures.Future], pending: dict[Run, Job]) -> None:
    """Show how far the trainings are, by their checkpoints, until all have ended."""
    total = sum(job.photos for job in pending.values())
    begun = sum(map(_photos_done, pending, pending.values()))
    with tqdm(total=total, initial=begun, desc="trainings", unit="photo") as bar:
        waiting = set(trainings)
        while waiting:
            ended, waiting = futures.wait(
                waiting, timeout=POLL, return_when=futures.FIRST_COMPLETED
            )
            _raise_failed(ended)
            bar.set_postfix_str(f"{len(trainings) - len(waiting)} of {len(trainings)} done")
            bar.update(sum(map(_photos_done, pending, pending.values())) - bar.n)


def _photos_done(run: Run, job: Job) -> int:
    return job.photos if run.finished else run.epochs_done * len(job.rows)


def _raise_failed(ended: set[futures.Future]) -> None:
    """Raise the first error of the trainings that ended."""
    try:
        for future in ended:
            future.result()
    except futures.BrokenExecutor as error:
        raise RuntimeError(
            "a training's process died, most likely for want of memory: lower batch_size or "
            "image_size. Asked for again, each training goes on from its last epoch"
        ) from error


if TYPE_CHECKING:  # optional: pip install -e .[dask]
    from distributed import Client

ANSWER = 10  # seconds that a scheduler has to answer


@contextmanager
def jobs_on(scheduler: str) -> Iterator[futures.Executor | None]:
    """An executor on the workers of a Dask scheduler ("tcp://host:8786"), None for "".

    Workers have this package and see the folders of photos, chips and runs under the same paths,
    and each trains one network at a time. A training whose worker dies is started again on another
    one, and goes on from its last epoch. Raises ValueError where no scheduler answers, RuntimeError
    when it is lost, or when a training's workers die again and again.
    """
    if not scheduler:
        yield None
        return
    try:
        from distributed import KilledWorker
    except ImportError as error:
        raise ValueError(
            f"scheduler: {scheduler} needs the package distributed: pip install -e .[dask]"
        ) from error
    with _connected(scheduler) as client:
        _advise(client, scheduler)
        try:
            yield client.get_executor(pure=False)
        except KilledWorker as error:
            raise RuntimeError(
                f"a training's workers died {error.allowed_failures + 1} times, most likely for "
                "want of memory: lower batch_size or image_size, or give workers more. Asked for "
                "again, each training goes on from its last epoch"
            ) from error
        except futures.CancelledError as error:
            raise RuntimeError(
                f"the scheduler at {scheduler} is gone. Start it again, and each training goes on "
                "from its last epoch"
            ) from error


def _connected(scheduler: str) -> "Client":
    from distributed import Client

    class Closing(Client):
        """Closed where it can't start: collected later, it may wait for ever for the lock under
        which another starts."""

        def start(self, **kwargs: object) -> None:
            try:
                super().start(**kwargs)
            except BaseException:
                self.close()
                raise

    try:
        return Closing(scheduler, timeout=ANSWER)
    except (OSError, ValueError, TypeError) as error:  # the last of tls:// without its settings
        raise ValueError(
            f"scheduler: none answers at {scheduler!r} ({error}); give the address that "
            "`dask scheduler` printed, such as tcp://host:8786, or leave it empty to train here"
        ) from error


def _advise(client: "Client", scheduler: str) -> None:
    """Say what keeps the workers from training, or from doing so at full speed."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    start = f"dask worker {scheduler} --nthreads 1"
    if not workers:
        tqdm.write(f"{scheduler} has no worker yet: start some with `{start}`")
    elif crowded := sum(worker["nthreads"] > 1 for worker in workers):
        tqdm.write(
            f"{crowded} workers of {scheduler} take several trainings and do one after the other, "
            f"while others may have none: start them with `{start}`"
        )
