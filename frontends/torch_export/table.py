"""The one table of converters: torch's operator -> the function that states it by bricks.

A converter is called with ``Out`` (what the program says of the results) and the operator's
arguments; its parameters have the names, order and defaults of torch's schema, ``x`` standing
for ``self``.
"""

from __future__ import annotations

from collections.abc import Callable

from .activations import ACTIVATIONS
from .arguments import Result
from .choices import CHOICES
from .creation import CREATION, iota_
from .indexing import INDEXING
from .losses import LOSSES
from .matrices import MATRICES
from .ordering import ORDERING
from .pointwise import POINTWISE
from .products import PRODUCTS
from .rearrange import REARRANGE
from .reductions import REDUCTIONS
from .stateful import STATEFUL
from .views import VIEWS
from .windows import WINDOWS

__all__ = ["ALIASING", "CONVERTERS", "IGNORED", "converter"]

CONVERTERS: dict[str, Callable[..., Result]] = {
    f"aten.{name}": function
    for part in (
        POINTWISE, CHOICES, ACTIVATIONS, REDUCTIONS, ORDERING, VIEWS, REARRANGE, MATRICES, CREATION,
        INDEXING, PRODUCTS, WINDOWS, STATEFUL, LOSSES,
    )
    for name, function in part.items()
} | {"prims.iota.default": iota_}  # fmt: skip

#: checks of sizes and values that torch inserts; a brickc program checks its inputs itself
IGNORED = frozenset((
    "aten._assert_async.msg", "aten._assert_scalar.default",
    "aten._assert_tensor_metadata.default", "aten.sym_constrain_range.default",
    "aten.sym_constrain_range_for_size.default",
))  # fmt: skip

#: operators whose results share memory with the first operand: with them, writing in place
#: would be seen in two tensors
ALIASING = frozenset(
    name for name in CONVERTERS
    if name.split(".")[1] in {
        "view", "reshape", "flatten", "unflatten", "permute", "transpose", "swapaxes", "t",
        "expand", "broadcast_to", "squeeze", "unsqueeze", "slice", "select", "narrow", "split",
        "split_with_sizes", "chunk", "unbind", "unfold", "diagonal", "alias", "contiguous",
        "detach", "to", "lift", "dropout", "pixel_shuffle", "meshgrid",
    }
)  # fmt: skip


def converter(target: str) -> tuple[Callable[..., Result] | None, bool]:
    """The operator's converter, and whether the operator writes its result in place."""
    found = CONVERTERS.get(target)
    if found is not None:
        return found, False
    name, dot, overload = target.rpartition(".")
    if name.endswith("_") and not name.endswith("__"):
        return CONVERTERS.get(f"{name[:-1]}{dot}{overload}"), True
    return None, False
