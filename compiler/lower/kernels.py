"""Fused groups of nodes -> kernels over buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...errors import InternalError
from ...ir.brick import Input, Leaf, Parameter, State, View
from ...ir.bricks.convert import Cast, StopGradient
from ...ir.bricks.elementwise import Elementwise
from ...ir.bricks.placement import Copy
from ...ir.bricks.pooled import WindowArgMax
from ...ir.bricks.shape import Reshape
from ...ir.bricks.source import Constant, DimSize, Iota, Literal
from ...ir.bricks.window import WindowMax, WindowSum
from ...ir.dims import Size, hint, maximum
from ...ir.dtypes import DType
from ...ir.graph import Graph, Node
from ...ir.kernel.kernel import Kernel, KernelProgram, Pool, Region
from ...ir.kernel.memory import Access, Buffer, Space
from ...ir.kernel.scalar import Literal as ScalarLiteral
from ...ir.kernel.scalar import ScalarBuilder
from ...ir.types import TensorType
from ..anchor_of import anchor_of
from ..fuse import Fusion, Group
from ..layouts import Layouts, Placed, broadcast_strides, reshaped_strides
from ..names import Namer
from .scalar import inline, program_of
from .tiles import without_tiles

__all__ = ["lower"]

#: names that generated modules use themselves
RESERVED = frozenset(
    {"np", "arena", "view", "blocks", "self", "dims", "functions", "load", "math", "main"}
)


def lower(
    graph: Graph,
    layouts: Layouts,
    fusion: Fusion,
    order: Sequence[Group],
    leaf_names: Mapping[str, str] | None = None,
) -> KernelProgram:
    """Kernels in the given order. ``leaf_names`` maps labels of leaves to identifiers."""
    return _Lowering(graph, layouts, fusion, leaf_names or {}).run(order)


@dataclass
class _Space:
    """A region under construction: values that it loads, and the program."""

    shape: tuple[Size, ...]
    builder: ScalarBuilder
    #: node id -> value number
    values: dict[int, int]
    #: what is read from memory, in the order of the program's inputs
    inputs: dict[Access, int]


class _Lowering:
    def __init__(
        self, graph: Graph, layouts: Layouts, fusion: Fusion, leaf_names: Mapping[str, str]
    ) -> None:
        self.graph = graph
        self.layouts = layouts
        self.fusion = fusion
        self.namer = Namer(RESERVED | frozenset(leaf_names.values()))
        self.kernel_namer = Namer(RESERVED)
        self.leaf_names = leaf_names
        self.buffers: dict[str, Buffer] = {}
        self.buffer_of: dict[int, str] = {}
        self.stored_over = {value: leaf for leaf, value in fusion.in_place.items()}
        self.roots = set(graph.roots())

    def run(self, order: Sequence[Group]) -> KernelProgram:
        graph = self.graph
        for node in graph.nodes():
            if isinstance(node.brick, Leaf):
                self._buffer(node.id)
        kernels = [self._kernel(group) for group in order]
        kernels += self._commits()
        outputs = {name: self._access(graph.node(id)) for name, id in graph.outputs.items()}
        kernels = self._sizes() + kernels
        used = {a.buffer for k in kernels for a in (*k.reads(), *k.writes())}
        used |= {a.buffer for a in outputs.values()}
        buffers = {
            name: b
            for name, b in self.buffers.items()
            if name in used or b.space in (Space.PARAMETER, Space.STATE, Space.INPUT)
        }
        limits = {
            node.brick.name: node.brick.limit
            for node in graph.nodes()
            if isinstance(node.brick, Input) and node.brick.limit
        }
        return KernelProgram(
            graph.name,
            dict(graph.dims),
            buffers,
            tuple(kernels),
            {name: self._access(graph.node(id)) for name, id in graph.inputs.items()},
            outputs,
            limits,
        )

    # -- memory --------------------------------------------------------------------------------

    def _buffer(self, root: int) -> str:
        if root in self.buffer_of:
            return self.buffer_of[root]
        if root in self.stored_over:
            self.buffer_of[root] = self._buffer(self.stored_over[root])
            return self.buffer_of[root]
        node = self.graph.node(root)
        buffer = self._make_buffer(node)
        self.buffers[buffer.name] = buffer
        self.buffer_of[root] = buffer.name
        return buffer.name

    def _make_buffer(self, node: Node) -> Buffer:
        type, brick = node.type, node.brick
        strides = self._placed(node).strides
        match brick:
            case Leaf():
                space = {Input: Space.INPUT, Parameter: Space.PARAMETER, State: Space.STATE}
                name = self.leaf_names.get(brick.name) or self.namer.name(brick.name)
                # rows of a parameter may be further apart than they are long
                ends = (n * s for n, s in zip(type.shape, strides, strict=True))
                size = type.size
                for end in ends if isinstance(brick, Parameter | State) else ():
                    size = end if hint(end) > hint(size) else size
                return Buffer(name, type.dtype, size, space[type_of(brick)], brick.name,
                              type.shape, strides)  # fmt: skip
            case Literal():
                name = self.namer.name("literal")
                order = self._placed(node).order(type)
                return Buffer(name, type.dtype, type.size, Space.LITERAL, "", type.shape, strides,
                              _laid_out(brick, order))  # fmt: skip
            case Constant():
                data = np.asarray(brick.value, type.dtype.numpy).tobytes()
                name = self.namer.name("constant")
                return Buffer(name, type.dtype, 1, Space.LITERAL, "", (), (), data)
            case Iota():
                length = maximum(type.shape[brick.axis])
                data = np.arange(length, dtype=type.dtype.numpy).tobytes()
                name = self.namer.name("iota")
                return Buffer(name, type.dtype, length, Space.LITERAL, "", (length,), (1,), data)
        name = self.namer.name(*_hints(node))
        return Buffer(name, type.dtype, type.size, Space.ARENA, "", type.shape, strides)

    def _placed(self, node: Node) -> Placed:
        leaf = self.stored_over.get(node.id)
        return self.layouts.placed[node.id if leaf is None else leaf]

    def _access(self, node: Node) -> Access:
        """The value where it lies in memory, in its own shape."""
        placed = self._placed(node)
        root = placed.root
        dtype = self.graph.node(root).type.dtype  # a half that is read as f32 is one in memory
        return Access(self._buffer(root), dtype, placed.offset, node.type.shape, placed.strides)

    def _broadcast(self, node: Node, shape: tuple[Size, ...]) -> Access:
        """The value read over a larger index space, with NumPy's broadcasting."""
        access = self._access(node)
        strides = broadcast_strides(access.shape, access.strides, shape)
        return Access(access.buffer, access.dtype, access.offset, shape, strides)

    def _over(self, access: Access, shape: tuple[Size, ...]) -> Access:
        """The same elements over the index space of a kernel that looks through a reshape."""
        type = TensorType(access.dtype, access.shape)
        found = reshaped_strides(type, access.offset, access.strides, shape)
        if found is None:
            raise InternalError(f"{access} cannot be walked over {list(shape)}")
        return replace(access, offset=found[0], shape=shape, strides=found[1])

    # -- kernels -------------------------------------------------------------------------------

    def _kernel(self, group: Group) -> Kernel:
        head = self.graph.node(group.anchor if group.anchor is not None else group.after[-1])
        name = self.kernel_namer.name(*_hints(head))
        notes = tuple(self._note(self.graph.node(m)) for m in group.members)
        nodes = tuple(group.members)
        if group.anchor is None and isinstance(head.brick, View):
            return self._materialise(head, name, notes)
        before = None
        if group.anchor is None:
            region = self._region(group, group.after)
            return Kernel(name, None, (), None, region, notes, nodes)
        anchor_node = self.graph.node(group.anchor)
        anchor = anchor_of(anchor_node.brick)
        if anchor is None:
            # a view that needs a copy and has an epilogue would come here: fuse keeps them apart
            raise InternalError(f"{anchor_node} ({anchor_node.brick.mnemonic}) is no anchor")
        operands: tuple[Access, ...] = ()
        if group.before:
            before = self._region(group, group.before, first=anchor_node.operands[0])
        else:
            operands = tuple(self._access(o) for o in self.graph.operands(anchor_node))
        given = [anchor_node]
        if not group.pools:
            region = self._region(group, group.after, given)
            return without_tiles(Kernel(name, anchor, operands, before, region, notes, nodes))
        source = self.graph.node(group.pools[0]).operands[0]
        region = self._region(group, group.after, given, first=source)
        return Kernel(name, anchor, operands, before, region, notes, nodes, self._pool(group))

    def _pool(self, group: Group) -> Pool:
        """The pool of a kernel, whose operand is result 0 of the region after the anchor."""
        nodes = [self.graph.node(p) for p in group.pools]
        tops = [n for n in nodes if not isinstance(n.brick, WindowArgMax)]
        numbers = [n for n in nodes if isinstance(n.brick, WindowArgMax)]
        brick = nodes[0].brick
        assert isinstance(brick, WindowSum | WindowMax | WindowArgMax)
        op = "sum" if isinstance(brick, WindowSum) else "max"
        # the maximum is there even if only its number is wanted
        value = self.graph.node(nodes[0].operands[0]).type.dtype
        given: list[Node | DType] = [tops[0] if tops else value, *numbers[:1]]
        region = self._region(group, group.pooled, given)
        return Pool(op, brick.window, 0, bool(numbers), region)

    def _region(
        self,
        group: Group,
        members: Sequence[int],
        given: Sequence[Node | DType] = (),
        first: int | None = None,
    ) -> Region:
        """The scalar program of some members. ``first`` is a value that is result 0.

        ``given`` are values that are there from the start; of one that nobody needs, the dtype.
        """
        graph = self.graph
        there = [n for n in given if isinstance(n, Node)]
        shape = (there[0] if there else graph.node(members[0])).type.shape
        space = _Space(shape, ScalarBuilder(), {}, {})
        inside = set(members)
        for value in given:
            if isinstance(value, Node):
                space.values[value.id] = space.builder.input(value.type.dtype)
            else:
                space.builder.input(value)
        inside |= group.views
        for member in members:
            node = graph.node(member)
            for operand in graph.operands(node):
                if operand.id not in inside and operand.id not in space.values:
                    self._load(space, operand, node.type.shape)
        for member in members:
            self._literals(space, graph.node(member))
            self._compute(space, graph.node(member))
        results: list[int] = [] if first is None else [space.values[first]]
        stores: list[tuple[int, Access]] = []
        computed = [n.id for n in there] + list(members)
        for id in computed:
            if self._is_stored(id, group):
                stores.append((len(results), self._over(self._access(graph.node(id)), shape)))
                results.append(space.values[id])
        return Region(shape, space.builder.build(results), tuple(space.inputs), tuple(stores))

    def _is_stored(self, id: int, group: Group) -> bool:
        """True if somebody outside the kernel reads the value."""
        if id in self.roots:
            return True
        inside = set(group.members)
        return any(
            self._is_stored(user.id, group) if user.id in group.views else user.id not in inside
            for user, _ in self.graph.users(id)
        )

    def _literal(self, node: Node) -> ScalarLiteral | None:
        """The number that every element of the value is, if it is one."""
        while isinstance(node.brick, View) and not self.layouts.owns(node.id):
            node = self.graph.node(node.operands[0])
        return node.brick.value if isinstance(node.brick, Constant) else None

    def _load(self, space: _Space, operand: Node, shape: tuple[Size, ...]) -> None:
        """An input of the space: the operand of a node of that shape."""
        if self._literal(operand) is not None or isinstance(operand.brick, DimSize):
            return  # becomes an instruction, after all inputs
        access = self._over(self._broadcast(operand, shape), space.shape)
        if access not in space.inputs:
            space.inputs[access] = space.builder.input(operand.type.dtype)
        space.values[operand.id] = space.inputs[access]

    def _literals(self, space: _Space, node: Node) -> None:
        for operand in self.graph.operands(node):
            if operand.id in space.values:
                continue
            literal = self._literal(operand)
            dtype: DType = operand.type.dtype
            if literal is not None:
                space.values[operand.id] = space.builder.const(literal, dtype)
            elif isinstance(operand.brick, DimSize):
                space.values[operand.id] = space.builder.size(operand.brick.size, dtype)

    def _compute(self, space: _Space, node: Node) -> None:
        args = [space.values[self._looked_through(space, o)] for o in node.operands]
        brick = node.brick
        match brick:
            case Elementwise():
                dtypes = tuple(space.builder.dtype(a) for a in args)
                program = program_of(brick.expression(), dtypes)
                value = inline(space.builder, program, args)
                space.values[node.id] = space.builder.cast(value, node.type.dtype)
            case Cast():
                space.values[node.id] = space.builder.cast(args[0], brick.dtype)
            case Copy() | StopGradient():
                space.values[node.id] = args[0]
            case _:
                raise InternalError(f"{brick.mnemonic} has no scalar form")

    def _looked_through(self, space: _Space, id: int) -> int:
        """The value of the kernel's own behind the reshapes that lead to an operand."""
        while id not in space.values:
            (id,) = self.graph.node(id).operands
        return id

    def _materialise(self, node: Node, name: str, notes: tuple[str, ...]) -> Kernel:
        """A view that strides cannot express: copy over the operand's index space."""
        operand = self.graph.node(node.operands[0])
        target = self._access(node)
        found = Reshape(operand.type.shape).restride(
            node.type, operand.type, target.offset, target.strides
        )
        if found is None:
            raise InternalError(f"{node}: neither side of the reshape can be strided")
        store = Access(target.buffer, target.dtype, found[0], operand.type.shape, found[1])
        builder = ScalarBuilder()
        value = builder.input(node.type.dtype)
        load = self._access(operand)
        region = Region(operand.type.shape, builder.build([value]), (load,), ((0, store),))
        return Kernel(name, None, (), None, region, notes, (node.id,))

    def _sizes(self) -> list[Kernel]:
        """Sizes that something reads from memory: an anchor, a view, the caller."""
        kernels = []
        for node in self.graph.nodes():
            if isinstance(node.brick, DimSize) and node.id in self.buffer_of:
                builder = ScalarBuilder()
                value = builder.size(node.brick.size, node.type.dtype)
                stores = ((0, self._access(node)),)
                region = Region((), builder.build([value]), (), stores)
                name = self.kernel_namer.name(*_hints(node))
                kernels.append(Kernel(name, None, (), None, region, (self._note(node),), ()))
        return kernels

    def _commits(self) -> list[Kernel]:
        """Copies for the updates that could not be stored over their leaf at once."""
        kernels = []
        for leaf, value in self.graph.updates.items():
            if leaf in self.fusion.in_place or leaf == value:
                continue
            target, source = self.graph.node(leaf), self.graph.node(value)
            builder = ScalarBuilder()
            number = builder.input(source.type.dtype)
            region = Region(
                target.type.shape,
                builder.build([number]),
                (self._access(source),),
                ((0, self._access(target)),),
            )
            name = self.kernel_namer.name("update", *_hints(target))
            note = f"{target.brick.name!r} <- {source}"  # type: ignore[attr-defined]
            kernels.append(Kernel(name, None, (), None, region, (note,), ()))
        return kernels

    def _note(self, node: Node) -> str:
        operands = ", ".join(f"%{o}" for o in node.operands)
        text = f"{node}: {node.type} = {node.brick.mnemonic}({operands})"
        if isinstance(node.brick, Elementwise):
            text += f"   y = {node.brick.expression()}"
        origin = str(node.origin)
        return f"{text}   {origin}" if origin else text


def type_of(leaf: Leaf) -> type[Leaf]:
    """Input, Parameter or State."""
    for kind in (Input, Parameter, State):
        if isinstance(leaf, kind):
            return kind
    raise InternalError(f"unknown leaf {leaf!r}")


def _hints(node: Node) -> tuple[str, ...]:
    """Words for the node's identifier: its layer, and whether it belongs to the backward pass."""
    brick = node.brick
    if isinstance(brick, Leaf):
        return (brick.name,)
    words = []
    if node.origin.note.startswith("grad of") or ", grad of" in node.origin.note:
        words.append("d")
    layer = node.origin.layer.rsplit("/", 1)[-1]
    words.append(layer)
    if isinstance(brick, Cast) and brick.dtype.is_half:
        return (*words, str(brick.dtype))
    if not layer or brick.mnemonic not in ("contract", "map"):
        words.append(brick.mnemonic)
    return tuple(words)


def _laid_out(brick: Literal, order: Sequence[int]) -> bytes:
    """The literal's bytes with its axes in that order in memory, outermost first."""
    if list(order) == sorted(order):
        return brick.data
    array = np.frombuffer(brick.data, brick.type.dtype.numpy.newbyteorder("<"))
    return array.reshape(brick.type.concrete({})).transpose(order).tobytes()
