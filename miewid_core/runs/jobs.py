"""Trainings side by side: on this computer's cores, or on the workers of a Dask cluster."""

import dataclasses
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING
from warnings import catch_warnings, filterwarnings

import pandas as pd
import torch
from filelock import Timeout
from loky import ProcessPoolExecutor
from tqdm import tqdm

from miewid_core import progress
from miewid_core.chips import CUT, ChipStore
from miewid_core.machine import default_device, threads
from miewid_core.runs.run import Run, Training

POLL = 1.0  # seconds between two looks at the trainings under way
DELAY = 60.0  # seconds after which a network file system shows what another computer wrote
MOST = 4  # trainings at once on one computer: each holds a network and its batches in memory
TURN = threading.Lock()  # of trainings in a process, whose random generator and threads they share
READ = ["annotation_id", "species", "individual", *CUT]


def train_all(trainings: Sequence[Training], executor: futures.Executor | None = None) -> list[Run]:
    """The finished runs of `trainings`, in order; what is not yet trained is trained, each once.

    `executor`: where they run, side by side; any of concurrent.futures, whose workers share their
    folders and do one training at a time, with as many threads as this process. None: processes of
    this computer, as many as it has cores for, or one after the other on its GPU. Raises what a
    training raises (see `training.fit`), and RuntimeError when a worker dies, or shares no folder
    with this process; what was trained is kept then.
    """
    starts = [training.start for training in trainings if training.start]
    for size, sized in groupby(trainings, lambda training: training.config.image_size):
        # made once here, in parallel, not by each training for itself
        sized = list(sized)
        rows = pd.concat([training.rows for training in sized]).drop_duplicates("annotation_id")
        ChipStore(sized[0].chips_dir, size).build(rows)
    for wave in (starts, trainings):  # a fine-tuning waits for the network that it goes on from
        distinct = {training.folder: training for training in wave}
        pending = [training for training in distinct.values() if not training.finished]
        _train(pending, len(distinct), executor)
    return [training.result for training in trainings]


def _train(pending: list[Training], asked: int, executor: futures.Executor | None) -> None:
    cores = torch.get_num_threads()
    # by what is asked, not by what is left: fewer threads round otherwise, and a set of trainings
    # that was interrupted is to end with the same bits
    count = 1 if default_device().type == "cuda" else min(asked, cores, MOST)
    if executor is None and count < 2:
        _train_in_turn(pending)
    elif executor is None and pending:
        with _processes(min(count, len(pending)), cores // count) as pool, catch_warnings():
            # memory that trainings free is kept for the next one; loky takes that for a leak
            filterwarnings("ignore", "A worker was restarted", UserWarning)
            try:
                _train_beside(pending, pool, cores // count)
            except KeyboardInterrupt:  # the workers got it too, but would go on with other jobs
                pool.shutdown(kill_workers=True)
                raise
    elif pending:
        _train_beside(pending, executor, cores)


def _train_in_turn(pending: list[Training]) -> None:
    """Train one by one; runs locked by another process are retried last."""
    locked: list[Training] = []
    for wait, left in ((False, pending), (True, locked)):
        for number, training in enumerate(left, 1 + len(pending) - len(left)):
            title = f"[{number}/{len(pending)}] {training.title}"
            try:
                dataclasses.replace(training, title=title).run(wait)
            except Timeout:
                locked.append(training)


def _train_beside(pending: list[Training], executor: futures.Executor, threads: int) -> None:
    submitted = [executor.submit(_train_there, _portable(own), threads) for own in pending]
    try:
        _follow(submitted, pending)
    finally:  # after an error or a Ctrl-C no other one begins
        for future in submitted:
            future.cancel()
    deadline = time.monotonic() + DELAY
    while lost := [training.folder for training in pending if not training.finished]:
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"{len(lost)} trainings have ended, but {lost[0]} has no result: do all workers "
                "see this folder, under the same path? Give a runs_dir that they share"
            )
        time.sleep(POLL)


def _portable(training: Training) -> Training:
    """A training for workers that may stand elsewhere: absolute paths, few columns."""
    weights = training.config.pretrained
    if isinstance(weights, str):
        weights = str(Path(weights).absolute())
    return dataclasses.replace(
        training,
        rows=training.rows[READ],
        config=dataclasses.replace(training.config, pretrained=weights),
        runs_dir=training.runs_dir.absolute(),
        chips_dir=training.chips_dir.absolute(),
        start=_portable(training.start) if isinstance(training.start, Training) else training.start,
    )


def _train_there(training: Training, count: int) -> None:
    """Train in a worker, with as many threads as here: with others sums are rounded otherwise."""
    with TURN, threads(count):
        training.run()


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


def _follow(submitted: Sequence[futures.Future], pending: list[Training]) -> None:
    """Show how far the trainings are, by their checkpoints, until all have ended or one failed."""
    total = sum(training.photos for training in pending)
    begun = sum(training.photos_done for training in pending)
    with progress(total=total, initial=begun, desc="trainings", unit="photo") as bar:
        waiting = set(submitted)
        while waiting:
            ended, waiting = futures.wait(
                waiting, timeout=POLL, return_when=futures.FIRST_COMPLETED
            )
            try:
                for future in ended:
                    future.result()
            except futures.BrokenExecutor as error:
                raise RuntimeError(
                    "a training's process died, most likely for want of memory: lower batch_size "
                    "or image_size. Asked for again, each training goes on from its last epoch"
                ) from error
            bar.set_postfix_str(f"{len(submitted) - len(waiting)} of {len(submitted)} done")
            bar.update(sum(training.photos_done for training in pending) - bar.n)


if TYPE_CHECKING:  # optional: pip install -e .[dask]
    from distributed import Client

ANSWER = 10  # seconds that a scheduler has to answer


@contextmanager
def workers_of(scheduler: str) -> Iterator[futures.Executor | None]:
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
