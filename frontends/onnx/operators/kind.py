"""What converters are: functions of a node, in tables by operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..node import Node

__all__ = ["Convert", "Table"]

#: gives the node's outputs: values, or items that are known while importing
Convert = Callable[[Node], object]

#: operator -> converter, or first opset -> converter where the meaning changed
Table = Mapping[str, Convert | dict[int, Convert]]
