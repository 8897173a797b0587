"""The order of kernels: legal, and with a low peak of live memory.

Two orders are tried, the graph's own and a greedy one that always runs the ready kernel
after which least memory is live; the one with the lower peak is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..ir.brick import Leaf
from ..ir.dims import hint
from ..ir.graph import Graph
from .fuse import Fusion, Group
from .layouts import Layouts

__all__ = ["schedule"]


def schedule(graph: Graph, layouts: Layouts, fusion: Fusion) -> tuple[Group, ...]:
    """The groups in their order of execution."""
    liveness = _Liveness(graph, layouts, fusion)
    given = list(fusion.groups)
    greedy = _greedy(given, fusion, liveness)
    return tuple(given if liveness.peak(given) <= liveness.peak(greedy) else greedy)


class _Liveness:
    """Bytes that groups allocate and free, at the typical sizes of dims."""

    def __init__(self, graph: Graph, layouts: Layouts, fusion: Fusion) -> None:
        group_of = {m: g.id for g in fusion.groups for m in g.members}
        updated = set(fusion.in_place.values())
        keep = {layouts.placed[r].root for r in graph.outputs.values()}
        #: root value -> bytes; only values that are stored in the arena
        self.size: dict[int, int] = {}
        self.makes: dict[int, list[int]] = {g.id: [] for g in fusion.groups}
        self.reads: dict[int, set[int]] = {g.id: set() for g in fusion.groups}
        self.readers: dict[int, set[int]] = {}
        for node in graph.nodes():
            home = group_of.get(node.id)
            root = layouts.placed[node.id].root
            for user, _ in graph.users(node.id):
                reader = group_of.get(user.id)
                # a kernel that looks through a view of its own value does not read it
                if reader is not None and reader != group_of.get(root):
                    self.readers.setdefault(root, set()).add(reader)
            if home is None or root != node.id or isinstance(node.brick, Leaf):
                continue
            if node.id in updated:
                continue
            self.size[node.id] = hint(node.type.nbytes)
            self.makes[home].append(node.id)
        for root in list(self.size):
            if not self.readers.get(root) and root not in keep:
                home = group_of[root]
                self.makes[home].remove(root)  # never leaves its kernel
                del self.size[root]
        for root, readers in self.readers.items():
            for reader in readers:
                self.reads[reader].add(root)
        self.keep = keep

    def peak(self, order: Sequence[Group]) -> int:
        remaining = {root: len(self.readers.get(root, ())) for root in self.size}
        live = highest = 0
        for group in order:
            live += sum(self.size[root] for root in self.makes[group.id])
            highest = max(highest, live)
            for root in self.reads[group.id]:
                if root in remaining:
                    remaining[root] -= 1
                    if remaining[root] == 0 and root not in self.keep:
                        live -= self.size[root]
        return highest


def _greedy(given: Sequence[Group], fusion: Fusion, liveness: _Liveness) -> list[Group]:
    position = {g.id: k for k, g in enumerate(given)}
    missing = {g.id: set(fusion.needs[g.id]) for g in given}
    followers: dict[int, list[int]] = {}
    for group in given:
        for need in fusion.needs[group.id]:
            followers.setdefault(need, []).append(group.id)
    remaining = {root: set(liveness.readers.get(root, ())) for root in liveness.size}
    ready = [g.id for g in given if not missing[g.id]]
    by_id = {g.id: g for g in given}
    order: list[Group] = []

    def growth(id: int) -> tuple[int, int]:
        freed = sum(
            liveness.size[root]
            for root in liveness.reads[id]
            if root in remaining and remaining[root] == {id} and root not in liveness.keep
        )
        return sum(liveness.size[r] for r in liveness.makes[id]) - freed, position[id]

    while ready:
        chosen = min(ready, key=growth)
        ready.remove(chosen)
        order.append(by_id[chosen])
        for root in liveness.reads[chosen]:
            if root in remaining:
                remaining[root].discard(chosen)
        for follower in followers.get(chosen, ()):
            missing[follower].discard(chosen)
            if not missing[follower]:
                ready.append(follower)
    return order
