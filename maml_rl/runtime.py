"""What must be set in the process before the first tensor: reproducible products and memory that is not given back."""

from __future__ import annotations

import ctypes
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # glibc malloc.h
_LARGEST = 2**31 - 1


def prepare_process() -> None:
    """Fix MKL's code path and keep freed memory in the process. Harmless if called twice or on other systems.

    Without the first, the last bits of a product depend on its shape and the thread count. Without the second, every
    large tensor is returned to the system when freed and faulted in again page by page when the next one is made. All
    threads share one arena: those of their own are cut into heaps of 64 MB, which are given back when they fall empty.
    """
    os.environ.setdefault("MKL_CBWR", "AVX2")
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        libc.mallopt(_M_TRIM_THRESHOLD, _LARGEST)
        libc.mallopt(_M_ARENA_MAX, 1)
    except (OSError, AttributeError, TypeError):
        pass  # not glibc: slower, not wrong
