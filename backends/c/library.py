"""The part of a C target's ``model.py`` that meets the shared library.

The text of the functions becomes part of the generated module, beside ``backends.host``; NEEDS
is written by the printer.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

import numpy as np

from ..host import _error

NEEDS: tuple[str, ...] = ()

__all__ = ["Absent", "entry", "missing_abilities", "open_library", "set_threads", "thread_count"]


def missing_abilities(needs: tuple[str, ...]) -> list[str]:
    """What the library was built for and this processor has not; empty if nobody can tell."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = [line for line in file if line.startswith(("flags", "Features"))]
    except OSError:
        return []
    have = set(lines[0].partition(":")[2].split()) if lines else set(needs)
    return [ability for ability in needs if ability not in have]


class Absent:
    """Stands for the library while brickc holds a program that cannot run here."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __getattr__(self, name: str) -> Any:
        raise _error("this program cannot run here", got=self.reason)


def open_library() -> Any:
    """The shared library beside this module. Raises ModelError if it cannot run here."""
    missing = missing_abilities(NEEDS)
    if missing:
        raise _error(
            "this processor cannot run the program",
            got=f"no {', '.join(missing)}",
            expected=f"one with {', '.join(NEEDS)}",
            hint="compile for another one: target c:x86-64-v3, c:x86-64-v2 or c:portable",
        )
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "libmodel.so")
    try:
        return ctypes.CDLL(path)
    except OSError as error:
        raise _error(f"{path} cannot be read", got=error) from None


def thread_count(count: int | None = None) -> int:
    """``count`` if it is a number of threads; None for $BRICKC_THREADS, else the cores."""
    if count is None:
        given = os.environ.get("BRICKC_THREADS", "")
        if given and not (given.isdecimal() and 1 <= int(given) <= 64):
            raise _error("BRICKC_THREADS is no number of threads", got=given, expected="1 to 64")
        affinity = getattr(os, "sched_getaffinity", None)
        cores = len(affinity(0)) if affinity else os.cpu_count() or 1
        count = int(given) if given else min(cores, 64)
    if not 1 <= count <= 64:
        raise _error("no number of threads", got=count, expected="1 to 64")
    return count


def set_threads(count: int | None = None) -> None:
    """Threads of every call from now on; None for $BRICKC_THREADS, else the cores there are."""
    THREADS.value = thread_count(count)


def entry(function: str, arena: Any, memory: Any, dims: Any, inputs: Any) -> Any:
    """A function that runs the library's on arrays like ``inputs``, at sizes that are settled.

    Small arguments are copied to a place whose address is known: asking for that of an array
    takes longer.
    """
    call = getattr(LIBRARY, function)
    sizes = (ctypes.c_int64 * max(1, len(dims)))(*dims)
    pointers = (ctypes.c_void_p * max(1, len(inputs)))()
    arena_at = ctypes.c_void_p(arena.ctypes.data)
    memory_at = ctypes.c_void_p(memory.ctypes.data)
    places = [np.empty(a.shape, a.dtype) if a.nbytes <= 65536 else None for a in inputs]
    for k, place in enumerate(places):
        if place is not None:
            pointers[k] = place.ctypes.data

    def run(*given: Any) -> None:
        kept = []
        for k, place in enumerate(places):
            if place is not None:
                place[...] = given[k]
            else:
                kept.append(np.ascontiguousarray(given[k]))
                pointers[k] = kept[-1].__array_interface__["data"][0]
        if call(arena_at, memory_at, sizes, pointers, THREADS):
            raise _error(f"{function}: an index has an element out of range")

    return run


THREADS = ctypes.c_int(1)
LIBRARY: Any = None
