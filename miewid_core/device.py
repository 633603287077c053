"""Where a network runs, with how many threads, and how the CPU's memory is kept warm."""

import ctypes
import functools
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def default_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc keep what a step frees for the next step; without effect on other systems.

    By default each large tensor is returned to the kernel and faulted in again, page by page:
    on two cores that costs a third of the training rate (61 against 90 photos/s were measured).
    """
    if platform.libc_ver()[0] == "glibc":
        no_mmap, trim_threshold = -4, -1  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
        libc = ctypes.CDLL(None)
        libc.mallopt(no_mmap, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
