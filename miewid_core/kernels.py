"""Jupyter kernels that run one notebook after the other, so that packages are loaded once."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from jupyter_client.manager import KernelManager

# reset takes these of every module too, and a process that is spawned asks for them
RESET = """get_ipython().reset()
__doc__ = __loader__ = __package__ = __spec__ = None
__annotations__ = {}"""
CLIENT = "jupyter_client.asynchronous.AsyncKernelClient"  # what nbclient awaits answers of


@contextmanager
def started(beside: int) -> Iterator[KernelManager]:
    """A running kernel of this Python; it is ended with the block, whatever it is doing.

    It has its share of the cores: two kernels with two threads each on two cores get a third as
    much done, as a thread that waits for another keeps its core busy.
    """
    kernel = KernelManager(kernel_name="python3", client_class=CLIENT)
    share = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // beside))} if beside > 1 else {}
    kernel.start_kernel(env=share | os.environ)
    try:
        yield kernel
    finally:
        kernel.shutdown_kernel(now=True)


def forget(kernel: KernelManager) -> None:
    """Empty an idle kernel's namespace: the next notebook finds none of the last one's names."""
    client = kernel.blocking_client()
    client.start_channels()
    try:
        client.execute(RESET, silent=True, reply=True, timeout=60)
    finally:
        client.stop_channels()
