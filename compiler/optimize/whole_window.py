"""Convolutions whose window is the whole image are matrix products.

LeNet-5's third convolution, or a fully connected layer that a model writes as a convolution:
the result has one place, so that nothing slides.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.bricks.contract import contract
from ...ir.bricks.convolution import Convolution, ConvolutionInputGrad, ConvolutionWeightGrad
from ...ir.bricks.shape import reshape
from ...ir.builder import Builder, GraphValue
from ...ir.dims import Size, product
from ...ir.graph import Graph, Node
from ...ir.value import Value
from .patterns import rewritten

__all__ = ["whole_window"]

_Brick = Convolution | ConvolutionInputGrad | ConvolutionWeightGrad


def whole_window(graph: Graph) -> Graph:
    """The graph with such convolutions, and their two adjoints, as contractions."""
    return rewritten(graph, _rule)


def _covers(brick: _Brick, image: Sequence[Size], kernel: Sequence[Size]) -> bool:
    """True if every example has one window, and it covers the example without padding."""
    return (
        brick.groups == 1
        and all(d == 1 for d in brick.dilation)
        and not any(lo or hi for lo, hi in brick.padding)
        and tuple(image) == tuple(kernel)
    )


def _matrix(x: Value) -> Value:
    return reshape(x, (x.shape[0], product(x.shape[1:])))


def _rule(builder: Builder, node: Node, operands: Sequence[GraphValue]) -> GraphValue | None:
    brick = node.brick
    result: Value
    match brick:
        case Convolution():
            x, w = operands
            if not _covers(brick, x.shape[2:], w.shape[2:]):
                return None
            result = contract("nk,ok->no", _matrix(x), _matrix(w))
        case ConvolutionInputGrad():
            dy, w = operands
            if not _covers(brick, node.type.shape[2:], w.shape[2:]):
                return None
            result = contract("no,ok->nk", _matrix(dy), _matrix(w))
        case ConvolutionWeightGrad():
            x, dy = operands
            if not _covers(brick, x.shape[2:], node.type.shape[2:]):
                return None
            result = contract("nk,no->ok", _matrix(x), _matrix(dy))
        case _:
            return None
    result = reshape(result, node.type.shape)
    assert isinstance(result, GraphValue)
    return result
