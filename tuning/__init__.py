"""The tuner: times candidates of kernels, and remembers what was fastest.

``search.py`` is the loop, ``cache.py`` the memory on disk. What is timed, and how, is the
backend's business (``backends.base.Bench``).
"""

from __future__ import annotations

from .cache import Entry, Memory, cache_folder
from .search import Outcome, Progress, Row, Tuner, task_list

__all__ = ["Entry", "Memory", "Outcome", "Progress", "Row", "Tuner", "cache_folder", "task_list"]
