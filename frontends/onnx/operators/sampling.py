"""Sampling an image at places that are computed, and putting columns back into an image."""

from __future__ import annotations

from .kind import Table

__all__ = ["TABLE"]

TABLE: Table = {}
