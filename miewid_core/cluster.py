"""Where trainings run side by side elsewhere: the workers of a Dask scheduler."""

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tqdm import tqdm

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
