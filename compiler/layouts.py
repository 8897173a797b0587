"""Layouts: the order of every value's axes in memory, and strides for everything.

A decision as data: for each value the node that owns its memory, an offset and strides.
Views share their operand's memory where strides allow; otherwise they own a copy.

Orders are found in three steps. Parameters' gradients and optimizer states lie as their
parameter does. Backwards, anchors say how they want to read (a packed convolution operand
channel by row, a matrix with the batch innermost), and values that can be written in any
order take the wish of their first reader. Forwards, contractions lie as their larger operand
does, with the contracted letters replaced by the other operand's; the rest follow their
operands. The wishes below are those of a GEMM with batch-innermost rows.

Over 500 lines: the three steps write one table of orders, and are only right together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..ir.brick import Leaf, Parameter, State, View
from ..ir.bricks.contract import Contract
from ..ir.bricks.convert import Cast, is_rounding, is_widening
from ..ir.bricks.convolution import Convolution, ConvolutionInputGrad, ConvolutionWeightGrad
from ..ir.bricks.elementwise import Elementwise
from ..ir.bricks.placement import Copy, Prefer
from ..ir.bricks.pooled import PooledInputGrad, PooledWeightGrad, WindowArgMax
from ..ir.bricks.reduce import ArgMax, ArgMin, ReduceMax, ReduceMin, ReduceSum
from ..ir.bricks.shape import (
    BroadcastTo,
    Concat,
    Pad,
    Reshape,
    Reverse,
    Slice,
    Transpose,
)
from ..ir.bricks.source import Iota
from ..ir.bricks.unfold import Fold, Unfold
from ..ir.bricks.window import (
    WindowMax,
    WindowMaxGather,
    WindowMaxScatter,
    WindowSum,
    WindowSumGrad,
)
from ..ir.dims import Size, hint, product
from ..ir.dtypes import DType
from ..ir.graph import Graph, Node
from ..ir.kernel.memory import contiguous_strides
from ..ir.types import TensorType

__all__ = ["Layouts", "Placed", "broadcast_strides", "choose_layouts", "reshaped_strides"]

Order = tuple[int, ...]

#: most weights of a convolution of one example that has its channels innermost
_CHANNEL_WEIGHTS = 2**17

#: bytes of a matrix that fills a good part of a cache, and of a cache line
_LARGE_MATRIX = 2**18
_LINE = 64

_WINDOWS = (WindowSum, WindowSumGrad, WindowMax, WindowMaxScatter, WindowMaxGather, WindowArgMax)
_REDUCTIONS = (ReduceSum, ReduceMax, ReduceMin, ArgMax, ArgMin)


@dataclass(frozen=True)
class Placed:
    """Where a value lies: in the memory of node ``root``, in elements."""

    root: int
    offset: Size
    strides: tuple[Size, ...]

    def order(self, type: TensorType) -> Order:
        """Axes from the outermost to the innermost; repeated axes (stride 0) come first."""
        return stride_order(type.shape, self.strides)


@dataclass(frozen=True)
class Layouts:
    """The decision: node id -> place. Roots map to themselves."""

    placed: dict[int, Placed]

    def owns(self, id: int) -> bool:
        """True if the value has memory of its own (if it is stored at all)."""
        return self.placed[id].root == id

    def shares(self, node: Node) -> bool:
        """True for a view of another value's memory, or a half that is widened when it is read."""
        return isinstance(node.brick, View | Cast) and not self.owns(node.id)


def broadcast_strides(
    shape: Sequence[Size], strides: Sequence[Size], wider: Sequence[Size]
) -> tuple[Size, ...]:
    """Strides with which a value is read over a larger index space, as NumPy broadcasts."""
    lead = len(wider) - len(shape)
    found: list[Size] = [0] * lead
    for size, stride, wanted in zip(shape, strides, wider[lead:], strict=True):
        found.append(0 if size == 1 and wanted != 1 else stride)
    return tuple(found)


def reshaped_strides(
    type: TensorType, offset: Size, strides: tuple[Size, ...], other: tuple[Size, ...]
) -> tuple[Size, tuple[Size, ...]] | None:
    """Offset and strides that walk the same elements, in C order, over another shape.

    None if no strides can do that.
    """
    if type.shape == other:
        return offset, strides
    return Reshape(other).restride(type, type.with_shape(other), offset, strides)


def stride_order(shape: Sequence[Size], strides: Sequence[Size]) -> Order:
    """Axes by falling stride; ties go to the earlier axis."""
    return tuple(
        sorted(
            range(len(shape)),
            key=lambda a: (strides[a] != 0, -abs(hint(strides[a])), hint(shape[a]) == 1, a),
        )
    )


def choose_layouts(
    graph: Graph,
    fixed: Mapping[str, Order] | None = None,
    policy: str = "batch innermost",
    *,
    widens: bool = False,
    apart_bytes: int = 0,
) -> Layouts:
    """Places for all values of a graph.

    ``fixed`` gives orders of parameters and states by name, decided by another function
    that shares them. ``policy`` and ``apart_bytes`` are the target's, see ``Capabilities``.
    ``widens`` says that it reads halves as f32.
    """
    return _Chooser(graph, fixed or {}, policy, widens, apart_bytes).run()


class _Chooser:
    def __init__(
        self,
        graph: Graph,
        fixed: Mapping[str, Order],
        policy: str,
        widens: bool,
        apart_bytes: int,
    ) -> None:
        self.graph = graph
        self.widens = widens
        self.apart_bytes = apart_bytes
        self.fixed = fixed
        self.row_major = policy == "row major"
        self.channels_last = policy == "channels last"
        self.nodes = graph.nodes()
        self.wants: dict[int, Order] = {}
        self.placed: dict[int, Placed] = {}
        #: node id -> the parameter that it is an update of, a gradient of or a state for
        self.family: dict[int, int] = {}
        self.parameter_order: dict[int, Order] = {}
        #: node id -> what ``_channels_in_lanes`` found
        self.in_lanes: dict[int, bool] = {}

    def run(self) -> Layouts:
        self._find_families()
        if not self.row_major:
            self._collect_wants()
        waiting: list[Node] = []
        for node in self.nodes:
            if isinstance(node.brick, Parameter | State):
                waiting.append(node)  # its first reader may decide
                continue
            for operand in self.graph.operands(node):
                if operand.id not in self.placed:
                    self._place_leaf(operand, node)
            self._place(node)
        for node in waiting:
            if node.id not in self.placed:
                self._place_leaf(node, node)
        return Layouts(self.placed)

    # -- parameters, their gradients and states -------------------------------------------

    def _find_families(self) -> None:
        """Elementwise-connected values of a parameter's own shape lie as it does."""
        parent: dict[int, int] = {n.id: n.id for n in self.nodes}

        def find(i: int) -> int:
            while parent[i] != i:
                parent[i] = parent[parent[i]]
                i = parent[i]
            return i

        for node in self.nodes:
            if isinstance(node.brick, Elementwise) or self._is_half(node):
                for operand in self.graph.operands(node):
                    if operand.type.shape == node.type.shape:
                        parent[find(operand.id)] = find(node.id)
        heads = {find(n.id): n.id for n in self.nodes if isinstance(n.brick, Parameter)}
        for node in self.nodes:
            head = heads.get(find(node.id))
            if head is not None and node.type.rank > 0:
                self.family[node.id] = head

    def _family_order(self, node: Node) -> Order | None:
        head = self.family.get(node.id)
        return None if head is None else self.parameter_order.get(head)

    def _place_leaf(self, leaf: Node, reader: Node) -> None:
        """A parameter's order is decided by its first contraction, else by the rows."""
        assert isinstance(leaf.brick, Leaf)
        if leaf.brick.name in self.fixed:
            self.parameter_order[leaf.id] = self.fixed[leaf.brick.name]
            self._place_root(leaf, self.fixed[leaf.brick.name])
            return
        if isinstance(leaf.brick, Parameter) and leaf.id not in self.parameter_order:
            order = None if self.row_major else self._contraction_order(leaf)
            order = order or _row_major(leaf)
            self.parameter_order[leaf.id] = order
        head = self.family.get(leaf.id)
        if isinstance(leaf.brick, State) and head is not None:
            self._ensure_parameter(head)
        self._place_root(leaf, self._family_order(leaf) or self.parameter_order.get(leaf.id)
                         or _row_major(leaf))  # fmt: skip

    def _ensure_parameter(self, head: int) -> None:
        if head not in self.placed:
            leaf = self.graph.node(head)
            self._place_leaf(leaf, leaf)

    def _contraction_order(self, leaf: Node) -> Order | None:
        """The order that the first convolution or contraction wants a parameter in, if any.

        Contracted letters outermost, in the order of the other operand; free ones innermost.

        The weight gradient then has the contracted letters as rows, of which there are more:
        BLAS is up to twice as fast on tall results, and reads transposed weights as fast.
        """
        for user, position in self.graph.users(leaf.id):
            if self._is_half(user):
                found = self._contraction_order(user)
                if found is not None:
                    return found
            if self.channels_last:
                if isinstance(user.brick, Convolution) and position == 1:
                    return _channels_last(leaf.type.rank)
                continue
            if position == 1 and self._channels_in_lanes(user):
                return _batch_innermost(leaf.type.rank)
            if not isinstance(user.brick, Contract):
                continue
            other = self.graph.node(user.operands[1 - position])
            if other.id not in self.placed:
                continue
            a, b, result = user.brick.letters()
            mine, theirs = (a, b) if position == 0 else (b, a)
            by_stride = [theirs[k] for k in self.placed[other.id].order(other.type)]
            contracted = [c for c in by_stride if c in mine and c not in result]
            free = [c for c in mine if c not in contracted]
            return tuple(mine.index(c) for c in (*contracted, *free))
        return None

    # -- wishes ------------------------------------------------------------------------------

    def _collect_wants(self) -> None:
        for node in reversed(self.nodes):
            want = self.wants.get(node.id)
            brick = node.brick
            match brick:
                case Copy() | Prefer() if brick.order is not None:
                    self._wish(node.operands[0], brick.order)
                case Contract():
                    if not self.channels_last:
                        self._wish_of_contract(node, brick)
                case Convolution() | ConvolutionInputGrad():
                    self._wish(node.operands[0], self._image(node.type.rank))
                case PooledInputGrad():
                    for operand in node.operands[:2]:
                        self._wish(operand, self._image(node.type.rank))
                case ConvolutionWeightGrad() | PooledWeightGrad():
                    for operand in node.operands:
                        self._wish(operand, self._image(node.type.rank))
                case _ if want is None:
                    pass
                case Unfold():
                    self._wish(node.operands[0], tuple(a for a in want if a != len(want) - 1))
                case Transpose():
                    self._wish(node.operands[0], tuple(brick.permutation[a] for a in want))
                case Reshape():
                    through = _through_reshape(self.graph.node(node.operands[0]), node, want)
                    if through is not None:
                        self._wish(node.operands[0], through)
                case Cast() if self._is_half(node):
                    self._wish_equal(node, want)
                case Elementwise() | Pad() | Slice() | Reverse() | Concat() | Copy():
                    self._wish_equal(node, want)
                case _ if isinstance(brick, _WINDOWS):
                    self._wish_equal(node, want)
                case _:
                    pass

    def _wish(self, id: int, order: Order) -> None:
        self.wants.setdefault(id, order)

    def _wish_equal(self, node: Node, want: Order) -> None:
        for operand in self.graph.operands(node):
            if operand.type.rank == node.type.rank:
                self._wish(operand.id, want)

    def _wish_of_contract(self, node: Node, brick: Contract) -> None:
        """A matrix that meets a parameter is read with the batch innermost."""
        for position in (0, 1):
            operand = self.graph.node(node.operands[position])
            other = self.graph.node(node.operands[1 - position])
            letters = brick.letters()
            if operand.type.rank == 2 and isinstance(other.brick, Parameter):
                contracted = [k for k, c in enumerate(letters[position]) if c not in letters[2]]
                if len(contracted) == 1:
                    self._wish(operand.id, (contracted[0], 1 - contracted[0]))

    # -- places ------------------------------------------------------------------------------

    def _place(self, node: Node) -> None:
        brick = node.brick
        if isinstance(brick, Iota):
            # one line of indices, repeated along the other axes
            strides = tuple(1 if a == brick.axis else 0 for a in range(node.type.rank))
            self.placed[node.id] = Placed(node.id, 0, strides)
            return
        if self.widens and self._is_half(node) and node.type.dtype is DType.F32:
            self.placed[node.id] = self.placed[node.operands[0]]
            return
        if isinstance(brick, View):
            operand = self.graph.node(node.operands[0])
            at = self.placed[operand.id]
            found = brick.restride(operand.type, node.type, at.offset, at.strides)
            if found is not None:
                self.placed[node.id] = Placed(at.root, found[0], found[1])
                return
        self._place_root(node, self._order(node))

    def _place_root(self, node: Node, order: Order) -> None:
        strides = contiguous_strides(node.type.shape, order)
        if isinstance(node.brick, Parameter | State):
            strides = self._apart(node.type, order, strides)
        self.placed[node.id] = Placed(node.id, 0, strides)

    def _apart(self, type: TensorType, order: Order, strides: tuple[Size, ...]) -> tuple[Size, ...]:
        """Strides of a large matrix with a cache line between rows that caches would put together.

        A thread that works on some columns reads a piece of every row; where these are a power of
        two apart, they share few sets of a cache, which then holds a fraction of what it could.
        """
        if not self.apart_bytes or type.rank != 2 or hint(type.nbytes) < _LARGE_MATRIX:
            return strides
        outer, item = order[0], type.dtype.itemsize
        pitch = strides[outer]
        if not isinstance(pitch, int) or pitch * item % self.apart_bytes:
            return strides
        padded = pitch + _LINE // item
        return tuple(padded if a == outer else s for a, s in enumerate(strides))

    def _order(self, node: Node) -> Order:
        brick = node.brick
        if isinstance(brick, Copy) and brick.order is not None:
            return brick.order
        if self.row_major:
            return _row_major(node)
        if self.channels_last and isinstance(brick, Leaf):
            return _row_major(node)  # as the host gives it: the first reader steps over it
        inherited = self._family_order(node)
        if inherited is not None:
            return inherited
        if isinstance(brick, Contract):
            if self.channels_last:
                return self.wants.get(node.id) or _row_major(node)
            return self._contract_order(node, brick)
        if isinstance(brick, Fold):
            operand = self.graph.node(node.operands[0])
            order = self.placed[operand.id].order(operand.type)
            return tuple(a for a in order if a != operand.type.rank - 1)
        want = self.wants.get(node.id)
        if isinstance(brick, _REDUCTIONS):
            return want or self._reduced_order(node)
        if self._channels_in_lanes(node):
            return _channels_last(node.type.rank)
        if isinstance(brick, Convolution | ConvolutionInputGrad | PooledInputGrad):
            return self._image(node.type.rank)
        if want is not None:
            return want
        if isinstance(brick, Leaf):
            return _row_major(node)
        follows = (Elementwise, Pad, Concat, Copy, BroadcastTo, *_WINDOWS)
        if isinstance(brick, follows) or self._is_half(node):
            for operand in self.graph.operands(node):
                if operand.type.shape == node.type.shape or (
                    operand.type.rank == node.type.rank and not isinstance(brick, Elementwise)
                ):
                    return self.placed[operand.id].order(operand.type)
        return _row_major(node)

    def _reduced_order(self, node: Node) -> Order:
        """The operand's order with the reduced axes taken out."""
        operand = self.graph.node(node.operands[0])
        order = self.placed[operand.id].order(operand.type)
        if operand.type.rank == node.type.rank:
            return order
        brick = node.brick
        axes = brick.axes if isinstance(brick, ReduceSum | ReduceMax | ReduceMin) else (brick.axis,)  # type: ignore[attr-defined]
        kept = [a for a in range(operand.type.rank) if a not in axes]
        return tuple(kept.index(a) for a in order if a in kept)

    def _contract_order(self, node: Node, brick: Contract) -> Order:
        a, b, result = brick.letters()
        left, right = self.graph.operands(node)
        weights = [isinstance(self._origin(n).brick, Parameter) for n in (left, right)]
        if weights[0] == weights[1]:
            return self.wants.get(node.id) or _row_major(node)
        data, other = (left, right) if weights[1] else (right, left)
        data_letters, other_letters = (a, b) if weights[1] else (b, a)
        by_stride = [data_letters[k] for k in self.placed[data.id].order(data.type)]
        free = [
            other_letters[k]
            for k in self.placed[other.id].order(other.type)
            if other_letters[k] in result and other_letters[k] not in data_letters
        ]
        if len(result) == 2:
            # a matrix: the weights' rows outermost, the batch innermost
            letters = free + [c for c in by_stride if c in result]
            return tuple(result.index(c) for c in letters)
        letters = []
        shared = [c for c in by_stride if c in other_letters and c in result]
        # groups stay next to the channels they hold, so that both merge into one axis
        inserted = shared + free
        for c in by_stride:
            if c in result and c not in shared:
                letters.append(c)
            elif c not in result and inserted:
                letters.extend(inserted)
                inserted = []
        letters.extend(inserted)
        return tuple(result.index(c) for c in letters)

    def _image(self, rank: int) -> Order:
        """How convolutions want images [N, C, *S] to lie."""
        return _channels_last(rank) if self.channels_last else _batch_innermost(rank)

    def _is_half(self, node: Node) -> bool:
        """True for a value in half the bytes of its operand, or in twice as many."""
        if not isinstance(node.brick, Cast):
            return False
        operand = self.graph.node(node.operands[0]).type
        return is_rounding(node.brick, operand) or is_widening(node.brick, operand)

    def _channels_in_lanes(self, node: Node) -> bool:
        """True for a convolution of one example whose channels fill vectors better than its rows.

        Not where the weights are so many that they would come from memory for every place.
        What is computed from such a value element by element, in the same kernel, lies as it does.
        """
        found = self.in_lanes.get(node.id)
        if found is None:
            # kept, since a value is asked about by all that are computed from it
            found = self.in_lanes[node.id] = self._has_channels_in_lanes(node)
        return found

    def _has_channels_in_lanes(self, node: Node) -> bool:
        if isinstance(node.brick, Elementwise):
            same = [o for o in self.graph.operands(node) if o.type.shape == node.type.shape]
            return any(self._channels_in_lanes(o) for o in same)
        if not isinstance(node.brick, Convolution) or node.type.shape[0] != 1:
            return False
        weights = self.graph.node(node.operands[1]).type
        channels, width = hint(node.type.shape[1]), hint(node.type.shape[-1])
        few = hint(product(weights.shape)) <= _CHANNEL_WEIGHTS
        return node.type.rank > 3 and few and channels >= max(8, width)

    def _origin(self, node: Node) -> Node:
        """The node that a chain of views and copies starts from."""
        while isinstance(node.brick, View | Copy) or self._is_half(node):
            node = self.graph.node(node.operands[0])
        return node


def _batch_innermost(rank: int) -> Order:
    return (*range(1, rank), 0)


def _channels_last(rank: int) -> Order:
    return (0, *range(2, rank), 1)


def _row_major(node: Node) -> Order:
    return tuple(range(node.type.rank))


def _through_reshape(operand: Node, node: Node, want: Order) -> Order | None:
    """The operand's order under which the reshaped value has the wanted one, if any."""
    groups = _reshape_groups(operand.type.shape, node.type.shape)
    if groups is None:
        return None
    order: list[int] = []
    for axis in want:
        for before, after in groups:
            if axis in after:
                # of several axes split from one, the innermost stands for it
                if axis == after[-1]:
                    order.extend(before)
    return tuple(order) if len(order) == operand.type.rank else None


def _reshape_groups(
    old: Sequence[Size], new: Sequence[Size]
) -> list[tuple[list[int], list[int]]] | None:
    """Runs of old axes and runs of new axes with the same number of elements."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) and j < len(new):
        before, after = [i], [j]
        left, right = old[i], new[j]
        i, j = i + 1, j + 1
        while left != right:
            if hint(left) < hint(right) and i < len(old):
                left = left * old[i]
                before.append(i)
                i += 1
            elif hint(left) > hint(right) and j < len(new):
                right = right * new[j]
                after.append(j)
                j += 1
            else:
                return None
        groups.append((before, after))
    if groups:
        groups[-1][0].extend(range(i, len(old)))
        groups[-1][1].extend(range(j, len(new)))
    return groups
