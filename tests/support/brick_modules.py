"""The bricks by mnemonic, collected from the modules of the catalogue."""

from __future__ import annotations

import importlib
import pkgutil

import brickc.ir.bricks
from brickc.ir.brick import Brick, Leaf

__all__ = ["catalogue"]


def catalogue() -> dict[str, type[Brick]]:
    """Every public brick of ``ir/bricks``."""
    found: dict[str, type[Brick]] = {}
    for info in pkgutil.iter_modules(brickc.ir.bricks.__path__):
        module = importlib.import_module(f"brickc.ir.bricks.{info.name}")
        for thing in vars(module).values():
            if isinstance(thing, type) and issubclass(thing, Brick) and "mnemonic" in vars(thing):
                if not issubclass(thing, Leaf):
                    found[thing.mnemonic] = thing
    return found
