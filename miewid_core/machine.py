"""Where a network runs, and with how many threads."""

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
def _glibc() -> ctypes.CDLL | None:
    """The C library where it is glibc; on other systems nothing here has an effect."""
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


@functools.cache
def keep_freed_memory() -> None:
    """Let what is freed stay with this process, until `give_back` or its end.

    By default each large array is returned to the kernel and faulted in again, page by page: on
    two cores that costs a third of the training rate (61 against 90 photos/s were measured), and
    of the time to make chips.
    """
    no_mmap, trim_threshold = -4, -1  # M_MMAP_MAX, M_TRIM_THRESHOLD of malloc.h
    if libc := _glibc():
        libc.mallopt(no_mmap, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def give_back() -> None:
    """Return what is free now to the system, of all threads: photos take more than chips do."""
    if libc := _glibc():
        libc.malloc_trim(0)
