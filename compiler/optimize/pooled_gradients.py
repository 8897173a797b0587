"""Gradients through a max pool into a convolution, by the numbers of the winners.

For targets that carry them out as sums over windows: ``Capabilities.pooled_gradients``.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.bricks.convolution import ConvolutionInputGrad, ConvolutionWeightGrad
from ...ir.bricks.pooled import PooledInputGrad, PooledWeightGrad, WindowArgMax
from ...ir.bricks.window import WindowMaxScatter
from ...ir.builder import Builder, GraphValue
from ...ir.graph import Graph, Node
from .patterns import operands_of, replace_node, rewritten

__all__ = ["pooled_gradients", "why_not"]


def pooled_gradients(graph: Graph) -> Graph:
    """The graph with such gradients of convolutions as sums over windows.

    Only where no gradient of the whole image is left: then neither it nor the image itself is
    needed any more.
    """
    roots = set(graph.roots())
    scatters = {
        node.id
        for node in graph.nodes()
        if isinstance(node.brick, WindowMaxScatter)
        and node.id not in roots
        and all(why_not(graph, node, user, k) is None for user, k in graph.users(node.id))
    }

    def rule(builder: Builder, node: Node, operands: Sequence[GraphValue]) -> GraphValue | None:
        brick = node.brick
        if isinstance(brick, ConvolutionWeightGrad) and node.operands[1] in scatters:
            x, scattered = operands
            image, _, v = operands_of(scattered)
            return replace_node(
                builder, node,
                PooledWeightGrad(
                    *_geometry(brick), _window(scattered), _sizes(image), brick.kernel_size
                ),
                [x, _index(image, scattered), v],
            )  # fmt: skip
        if isinstance(brick, ConvolutionInputGrad) and node.operands[0] in scatters:
            scattered, w = operands
            image, _, v = operands_of(scattered)
            size = tuple(n for n in brick.input_size if isinstance(n, int))
            return replace_node(
                builder, node,
                PooledInputGrad(*_geometry(brick), _window(scattered), _sizes(image), size),
                [_index(image, scattered), v, w],
            )  # fmt: skip
        return None

    return rewritten(graph, rule)


def why_not(graph: Graph, scatter: Node, user: Node, position: int) -> str | None:
    """Why a reader of a max pool's gradient takes it whole; None if it is a sum over windows."""
    pool, brick = scatter.brick, user.brick
    assert isinstance(pool, WindowMaxScatter)
    if isinstance(brick, ConvolutionWeightGrad) and position == 1:
        image, kernel = graph.node(user.operands[0]).type.shape, brick.kernel_size
    elif isinstance(brick, ConvolutionInputGrad) and position == 0:
        image = user.type.shape
        kernel = tuple(n for n in graph.node(user.operands[1]).type.shape[2:] if isinstance(n, int))
    else:
        return f"{brick.mnemonic} reads every element"
    if pool.window != pool.stride or pool.window[:2] != (1, 1):
        return "windows overlap, or lie along channels"
    if any(p != (0, 0) for p in pool.padding):
        return "windows with padding"
    sizes = (*image[2:], *scatter.type.shape[2:])
    if len(kernel) != 2 or not all(isinstance(n, int) for n in sizes):
        return "only images of two axes of fixed sizes"
    if brick.groups != 1 or brick.dilation != (1, 1) or brick.sums is not None:
        return "a convolution with groups, dilation or halves"
    if kernel == (3, 3) and brick.stride == (1, 1):
        return "Winograd's transforms take 3 × 3 taps with fewer products"
    return None


def _geometry(
    brick: ConvolutionWeightGrad | ConvolutionInputGrad,
) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...], tuple[int, ...], int]:
    return brick.stride, brick.padding, brick.dilation, brick.groups


def _window(scattered: GraphValue) -> tuple[int, ...]:
    brick = scattered.node.brick
    assert isinstance(brick, WindowMaxScatter)
    return brick.window[2:]


def _sizes(image: GraphValue) -> tuple[int, ...]:
    return tuple(n for n in image.shape[2:] if isinstance(n, int))


def _index(image: GraphValue, scattered: GraphValue) -> GraphValue:
    brick = scattered.node.brick
    assert isinstance(brick, WindowMaxScatter)
    image.builder.origin = scattered.node.origin
    found = image.apply(WindowArgMax(brick.window), image)
    assert isinstance(found, GraphValue)
    return found
