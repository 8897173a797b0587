"""Fusion: which nodes make one kernel, and for every edge the reason why or why not.

Nodes are visited operands first. An elementwise node joins the kernel of an operand if
that is legal (same index space, no path out of the kernel and back) and pays (bytes that
need not be read again). A reduction takes the elementwise kernel before it as its prologue.
A pool joins the convolution before it, where the target can: what follows it is walked over the
windows.
Legality and profit are separate functions; both leave their reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..ir.brick import Leaf, View
from ..ir.bricks.convert import Cast, StopGradient, is_rounding, is_widening
from ..ir.bricks.convolution import Convolution
from ..ir.bricks.elementwise import Elementwise
from ..ir.bricks.placement import Copy
from ..ir.bricks.pooled import WindowArgMax
from ..ir.bricks.reduce import ReduceMax, ReduceMin, ReduceSum
from ..ir.bricks.shape import Reshape
from ..ir.bricks.source import Constant, DimSize, Iota, Literal
from ..ir.bricks.window import WindowMax, WindowSum
from ..ir.dims import Size, hint
from ..ir.graph import Graph, Node
from ..ir.kernel.capabilities import Capabilities
from .anchor_of import anchor_kind
from .layouts import Layouts, broadcast_strides, reshaped_strides

__all__ = ["SOURCES", "Decision", "Fusion", "Group", "fuse", "update_places"]


#: bricks that cost nothing: their values are in memory, or literals, from the start
SOURCES = (Leaf, Constant, DimSize, Iota, Literal)


@dataclass(frozen=True)
class Decision:
    """Whether the value of ``source`` reaches ``target`` inside one kernel, and why."""

    source: int
    target: int
    fused: bool
    reason: str


@dataclass
class Group:
    """The nodes of one kernel: ``before`` the anchor, the anchor, ``after`` it."""

    id: int
    anchor: int | None = None
    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    #: reshapes of members' values that other members look through
    views: set[int] = field(default_factory=set)
    #: pools of one value of the kernel, and what follows them
    pools: list[int] = field(default_factory=list)
    pooled: list[int] = field(default_factory=list)

    @property
    def members(self) -> list[int]:
        middle = [] if self.anchor is None else [self.anchor]
        return [*self.before, *middle, *self.after, *self.pools, *self.pooled]

    def role(self, member: int) -> str:
        """What a member is in the kernel: anchor, before, after, pool or pooled."""
        places = (("before", self.before), ("after", self.after), ("pool", self.pools),
                  ("pooled", self.pooled))  # fmt: skip
        return next((name for name, ids in places if member in ids), "anchor")

    def behind_pool(self, id: int) -> bool:
        """True for a member whose value has one element a window."""
        return id in self.pools or id in self.pooled


@dataclass(frozen=True)
class Fusion:
    """The decision: groups in a legal order of execution, and the reason for every edge."""

    groups: tuple[Group, ...]
    decisions: tuple[Decision, ...]
    #: leaf id -> id of the value that is stored over it
    in_place: dict[int, int]
    #: group id -> ids of groups that must run before it
    needs: dict[int, frozenset[int]]


def is_kernel_node(node: Node, layouts: Layouts) -> bool:
    """True unless the node costs nothing: a leaf, a literal, a view of another's memory."""
    if isinstance(node.brick, SOURCES):
        return False
    return not layouts.shares(node)


def _winograd(convolution: Node, kernel: tuple[Size, ...]) -> str | None:
    """Why a pool does not pay after a convolution whose places are not made one by one."""
    brick = convolution.brick
    if isinstance(brick, Convolution) and kernel[2:] == (3, 3) and brick.stride == (1, 1):
        return "Winograd's transforms make tiles of places"
    return None


def is_map(node: Node) -> bool:
    """True if the node computes each element from the same elements of its operands."""
    return isinstance(node.brick, Elementwise | Cast | Copy | StopGradient)


def update_places(graph: Graph) -> dict[int, int]:
    """Which updates can be stored over their leaf: leaf id -> value id.

    Not possible where a reader of the old value comes after the new one, be it only because
    another update must wait for its own readers: two parameters that change places.
    """
    places: dict[int, int] = {}
    taken: set[int] = set()
    #: reader of a leaf -> values that wait for it, as they are stored over the leaf
    waiting: dict[int, set[int]] = {}
    for leaf, value in graph.updates.items():
        node = graph.node(value)
        readers = _readers(graph, leaf)
        if isinstance(node.brick, (*SOURCES, View)) or value in taken:
            continue
        later = _later(graph, value, waiting)
        if any(r in later for r in readers if r != value):
            continue
        if anchor_kind(node) is not None and value in readers:
            continue  # an anchor reads elements that it has already written
        places[leaf] = value
        taken.add(value)
        for reader in readers - {value}:
            waiting.setdefault(reader, set()).add(value)
    return places


def _readers(graph: Graph, leaf: int) -> set[int]:
    """Nodes that read the leaf's memory, through views too."""
    found: set[int] = set()
    stack = [leaf]
    while stack:
        node = graph.node(stack.pop())
        for user, _ in graph.users(node.id):
            if user.id not in found:
                found.add(user.id)
                if isinstance(user.brick, View) or is_widening(user.brick, node.type):
                    stack.append(user.id)
    return found


def _later(graph: Graph, id: int, waiting: Mapping[int, set[int]]) -> set[int]:
    """Nodes that must run after a node: its users, what waits for it, and so on."""
    found: set[int] = set()
    stack = [id]
    while stack:
        number = stack.pop()
        followers = {user.id for user, _ in graph.users(number)} | waiting.get(number, set())
        stack.extend(followers - found)
        found |= followers
    return found


def fuse(graph: Graph, layouts: Layouts, capabilities: Capabilities) -> Fusion:
    """Group the nodes of a laid-out graph into kernels."""
    return _Fuser(graph, layouts, capabilities).run()


class _Fuser:
    def __init__(self, graph: Graph, layouts: Layouts, capabilities: Capabilities) -> None:
        self.graph = graph
        self.layouts = layouts
        self.caps = capabilities
        self.groups: dict[int, Group] = {}
        self.group_of: dict[int, int] = {}
        self.needs: dict[int, set[int]] = {}
        self.decisions: list[Decision] = []
        self.in_place = {
            leaf: value
            for leaf, value in update_places(graph).items()
            if self._fits_over(leaf, value)
        }
        self.stored_over = {value: leaf for leaf, value in self.in_place.items()}
        #: value stored over a leaf -> nodes that must read the leaf first
        self.read_first: dict[int, set[int]] = {}
        for leaf, value in self.in_place.items():
            readers = {r for r in _readers(graph, leaf) if r != value and r in graph}
            self.read_first.setdefault(value, set()).update(readers)

    def _fits_over(self, leaf: int, value: int) -> bool:
        """False if the leaf's memory has another order of axes and views tell of the value's."""
        placed = self.layouts.placed
        if placed[leaf].strides == placed[value].strides:
            return True
        return not any(p.root == value and n != value for n, p in placed.items())

    def run(self) -> Fusion:
        for node in self._order():
            if not is_kernel_node(node, self.layouts):
                continue
            candidates = self._candidates(node)
            chosen: Group | None = None
            for group, source in candidates:
                reason = self._illegal(node, group, source)
                if reason is None:
                    reason = self._unprofitable(node, group, source)
                if reason is None and chosen is None:
                    chosen = group
                    self._say(source, node.id, True, self._gain(source))
                elif reason is None:
                    self._say(source, node.id, group is chosen, "another operand's kernel is later")
                else:
                    self._say(source, node.id, False, reason)
            self._join(node, chosen)
        return Fusion(
            tuple(self._topological()),
            tuple(self.decisions),
            self.in_place,
            {g: frozenset(n) for g, n in self.needs.items()},
        )

    def _order(self) -> list[Node]:
        """Operands first, and readers of a leaf before the value stored over it."""
        nodes = self.graph.nodes()
        placed: set[int] = set()
        order: list[Node] = []

        def visit(start: Node) -> None:
            stack = [start]
            while stack:
                node = stack[-1]
                if node.id in placed:
                    stack.pop()
                    continue
                before = [*node.operands, *sorted(self.read_first.get(node.id, ()))]
                missing = [self.graph.node(b) for b in before if b not in placed]
                if missing:
                    stack.extend(reversed(missing))
                else:
                    placed.add(node.id)
                    order.append(node)
                    stack.pop()
                    # its half is stored by the same kernel, before a reduction takes that over
                    stack.extend(
                        user
                        for user, _ in reversed(self.graph.users(node.id))
                        if is_rounding(user.brick, node.type) and user.id not in placed
                    )

        for node in nodes:
            visit(node)
        return order

    # -- candidates and their reasons ------------------------------------------------------

    def _candidates(self, node: Node) -> list[tuple[Group, int]]:
        """Kernels of the operands, the latest first; edges from memory get their reason."""
        found: dict[int, tuple[Group, int]] = {}
        for source in dict.fromkeys(node.operands):
            operand = self.graph.node(source)
            if is_map(node):
                operand = self._behind_reshapes(operand)
            if not is_kernel_node(operand, self.layouts):
                if isinstance(operand.brick, View):
                    self._say(source, node.id, False, "read through a view of memory")
                elif isinstance(operand.brick, Cast):
                    kept = self.graph.node(operand.operands[0]).type.dtype
                    self._say(source, node.id, False, f"kept as {kept} between kernels")
                continue
            number = self.group_of[operand.id]
            found.setdefault(number, (self.groups[number], source))
        return [found[n] for n in sorted(found, reverse=True)]

    def _behind_reshapes(self, node: Node) -> Node:
        while isinstance(node.brick, Reshape) and not is_kernel_node(node, self.layouts):
            node = self.graph.node(node.operands[0])
        return node

    def _space(self, group: Group, operand: int) -> tuple[Size, ...]:
        """The index space of a kernel's results: of its windows, if the operand is one's."""
        first = group.anchor if group.anchor is not None else group.after[0]
        if group.behind_pool(operand):
            first = group.pools[0]
        return self.graph.node(first).type.shape

    def _walkable(self, node: Node, group: Group, operand: int) -> bool:
        """Can what the node reads and writes be walked over the index space of that operand?"""
        space = self._space(group, operand)
        if node.type.shape == space:
            return True
        placed = self.layouts.placed
        accesses = [(node, placed[self._home(node.id)])]
        for source in self.graph.operands(node):
            if self._behind_reshapes(source).id not in group.members:
                accesses.append((source, placed[self._home(source.id)]))
        for value, at in accesses:
            strides = broadcast_strides(value.type.shape, at.strides, node.type.shape)
            type = value.type.with_shape(node.type.shape)
            if reshaped_strides(type, at.offset, strides, space) is None:
                return False
        return True

    def _home(self, id: int) -> int:
        """The leaf that a value is stored over, else the value."""
        return self.stored_over.get(id, id)

    def _illegal(self, node: Node, group: Group, source: int) -> str | None:
        operand = self.graph.node(source)
        if is_map(node):
            operand = self._behind_reshapes(operand)
        if isinstance(operand.brick, View):
            return "a view that strides cannot express is copied by a kernel of its own"
        if is_map(node):
            if self.graph.node(source).type.shape != node.type.shape:
                return f"index spaces differ: {operand.type} is broadcast to {node.type}"
            if not self._walkable(node, group, operand.id):
                space = list(self._space(group, operand.id))
                return f"{node.type} cannot be walked over {space} by strides"
            inside = [b for o in node.operands if (b := self._behind(node, o)) in group.members]
            if len({group.behind_pool(b) for b in inside}) > 1:
                return "one operand comes before the kernel's pool, another one after it"
            if group.anchor is not None:
                if operand.id in group.before:
                    return "the value comes before the kernel's reduction"
                kind = anchor_kind(self.graph.node(group.anchor))
                if kind not in self.caps.epilogue:
                    return f"{self.caps.name} takes no epilogue after {kind}"
        elif isinstance(node.brick, ReduceSum | ReduceMax | ReduceMin):
            if group.anchor is not None:
                return "a kernel has one anchor"
            if "reduce" not in self.caps.prologue:
                return f"{self.caps.name} takes no prologue before reduce"
            if self._space(group, source) != operand.type.shape:
                return "the kernel looks through a reshape, and its index space is another"
        elif isinstance(node.brick, WindowMax | WindowSum | WindowArgMax):
            reason = self._no_pool(node, group, operand)
            if reason is not None:
                return reason
        else:
            return f"{node.brick.mnemonic} reads its operands from memory"
        others = [o for o in node.operands if self._behind(node, o) not in group.members]
        others += [r for r in self.read_first.get(node.id, ()) if r not in group.members]
        for other in others:
            if self._depends(other, group.id):
                return f"%{other} depends on this kernel and is needed by it"
        return None

    def _no_pool(self, node: Node, group: Group, operand: Node) -> str | None:
        """Why a pool cannot be part of the kernel that makes its operand."""
        brick = node.brick
        assert isinstance(brick, WindowMax | WindowSum | WindowArgMax)
        mnemonic = brick.mnemonic
        if group.anchor is None:
            return f"{mnemonic} reads its operand from memory"
        kind = anchor_kind(self.graph.node(group.anchor))
        if kind not in self.caps.pool:
            return f"{self.caps.name} takes no pool after {kind}"
        if group.behind_pool(operand.id):
            return "a kernel has one pool"
        if operand.type.shape != self._space(group, operand.id):
            return "the kernel looks through a reshape, and its index space is another"
        if not isinstance(brick, WindowArgMax) and (
            brick.stride != brick.window or any(p != (0, 0) for p in brick.padding)
        ):
            return "windows that overlap, are apart or have padding"
        if brick.window[:2] != (1, 1) or not all(isinstance(n, int) for n in node.type.shape[2:]):
            return "windows along channels, or of an image of unknown size"
        for other in map(self.graph.node, group.pools):
            theirs = other.brick
            assert isinstance(theirs, WindowMax | WindowSum | WindowArgMax)
            same = other.operands == node.operands and theirs.window == brick.window
            if not same or WindowSum in (type(theirs), type(brick)):
                return "a kernel has one pool"
        return None

    def _behind(self, node: Node, operand: int) -> int:
        """The operand, or for a map the value that it is a reshape of."""
        return self._behind_reshapes(self.graph.node(operand)).id if is_map(node) else operand

    def _unprofitable(self, node: Node, group: Group, source: int) -> str | None:
        if isinstance(node.brick, Copy) and node.brick.order is not None:
            return "the copy changes the order of axes"
        if isinstance(node.brick, Elementwise):
            return None
        if isinstance(node.brick, WindowMax | WindowSum | WindowArgMax):
            assert group.anchor is not None
            anchor = self.graph.node(group.anchor)
            return _winograd(anchor, self.graph.node(anchor.operands[1]).type.shape)
        if isinstance(node.brick, ReduceSum | ReduceMax | ReduceMin):
            stored = [u for u, _ in self.graph.users(source) if u.id != node.id]
            if stored and len(group.after) == 1 and not self._computes(source):
                return "nothing is computed before the reduction"
        return None

    def _computes(self, id: int) -> bool:
        return isinstance(self.graph.node(id).brick, Elementwise)

    def _gain(self, source: int) -> str:
        return f"saves reading {hint(self.graph.node(source).type.nbytes)} bytes"

    def _say(self, source: int, target: int, fused: bool, reason: str) -> None:
        self.decisions.append(Decision(source, target, fused, reason))

    # -- the groups --------------------------------------------------------------------------

    def _join(self, node: Node, group: Group | None) -> None:
        if group is None:
            group = Group(node.id)
            self.groups[group.id] = group
            self.needs[group.id] = set()
            if is_map(node) or isinstance(node.brick, View):
                group.after.append(node.id)
            else:
                group.anchor = node.id
        elif is_map(node):
            behind = any(group.behind_pool(self._behind(node, o)) for o in node.operands)
            (group.pooled if behind else group.after).append(node.id)
        elif isinstance(node.brick, WindowMax | WindowSum | WindowArgMax):
            group.pools.append(node.id)
        else:
            group.before, group.after = group.after, []
            group.anchor = node.id
        self.group_of[node.id] = group.id
        if is_map(node):
            self._look_through(node, group)
        before = [*node.operands, *self.read_first.get(node.id, ())]
        for source in self._kernels_behind(before):
            if source != group.id:
                self.needs[group.id].add(source)

    def _look_through(self, node: Node, group: Group) -> None:
        """Note the reshapes between members of a kernel."""
        for operand in self.graph.operands(node):
            if self._behind_reshapes(operand).id in group.members:
                while operand.id not in group.members:
                    group.views.add(operand.id)
                    operand = self.graph.node(operand.operands[0])

    def _kernels_behind(self, ids: Iterable[int]) -> set[int]:
        """Groups that write the memory behind these values."""
        found: set[int] = set()
        stack = list(ids)
        while stack:
            number = stack.pop()
            if number in self.group_of:
                found.add(self.group_of[number])
            else:
                stack.extend(self.graph.node(number).operands)
        return found

    def _depends(self, id: int, group: int) -> bool:
        """True if the value needs the group to have run, by way of another group or view."""
        seen: set[int] = set()
        stack = [g for g in self._kernels_behind([id]) if g != group]
        if id not in self.group_of and group in self._kernels_behind([id]):
            return True  # a view of this kernel's own result
        while stack:
            number = stack.pop()
            if number == group:
                return True
            if number not in seen:
                seen.add(number)
                stack.extend(self.needs[number])
        return False

    def _topological(self) -> list[Group]:
        order: list[Group] = []
        done: set[int] = set()
        for start in sorted(self.groups):
            stack = [start]
            while stack:
                number = stack[-1]
                missing = sorted(n for n in self.needs[number] if n not in done)
                if number in done:
                    stack.pop()
                elif missing:
                    stack.extend(reversed(missing))
                else:
                    done.add(number)
                    order.append(self.groups[number])
                    stack.pop()
        return order
