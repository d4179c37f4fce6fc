"""The cheapest way to take one end of every edge: exact minimum-weight vertex covers of bipartite graphs.

Reads edges and weights as Python values, returns the nodes to take. The cover is the minimum cut of the flow network
source -> left (its weight) -> right (no limit) -> sink (its weight), found by Dinic's algorithm on whole numbers.

    >>> minimum_cover([("a", "x"), ("a", "y"), ("b", "y")], {"a": 4, "b": 5}, {"x": 1, "y": 4})
    ([], ['x', 'y'])
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

_SOURCE, _SINK = 0, 1


def minimum_cover(
    edges: Iterable[tuple[str, str]], left: Mapping[str, int], right: Mapping[str, int]
) -> tuple[list[str], list[str]]:
    """Return the (left nodes, right nodes) of least total weight that touch every edge, sorted.

    Args:
        edges: (left node, right node); the sides are apart, so one name may be on both.
        left: weight of each left node, at least 0.
        right: weight of each right node.

    Among covers of equal weight it is the one with all left nodes that any of them has, whatever the order of edges.
    """
    pairs = sorted(set(edges))
    lefts, rights = sorted({a for a, _ in pairs}), sorted({b for _, b in pairs})
    from_left = {node: 2 + place for place, node in enumerate(lefts)}
    from_right = {node: 2 + len(lefts) + place for place, node in enumerate(rights)}
    network = _Network(2 + len(lefts) + len(rights))
    for node in lefts:
        network.add(_SOURCE, from_left[node], left[node])
    for node in rights:
        network.add(from_right[node], _SINK, right[node])
    unlimited = 1 + sum(left[node] for node in lefts)
    for a, b in pairs:
        network.add(from_left[a], from_right[b], unlimited)
    while (distance := network.distances())[_SINK] >= 0:
        network.fill(distance)
    # What the source still reaches is the smallest of all minimum cuts.
    chosen_left = [node for node in lefts if distance[from_left[node]] < 0]
    return chosen_left, [node for node in rights if distance[from_right[node]] >= 0]


class _Network:
    """Arcs in pairs (2k and its reverse 2k + 1) with what each can still carry."""

    def __init__(self, num_nodes: int) -> None:
        self.arcs: list[list[int]] = [[] for _ in range(num_nodes)]
        self.head: list[int] = []
        self.room: list[int] = []

    def add(self, tail: int, head: int, room: int) -> None:
        for start, end, carried in ((tail, head, room), (head, tail, 0)):
            self.arcs[start].append(len(self.head))
            self.head.append(end)
            self.room.append(carried)

    def distances(self) -> list[int]:
        """Return how many arcs with room lie between the source and each node; -1 where it is not reached."""
        distance = [-1] * len(self.arcs)
        distance[_SOURCE] = 0
        waiting = deque([_SOURCE])
        while waiting:
            node = waiting.popleft()
            for arc in self.arcs[node]:
                head = self.head[arc]
                if self.room[arc] and distance[head] < 0:
                    distance[head] = distance[node] + 1
                    waiting.append(head)
        return distance

    def fill(self, distance: list[int]) -> None:
        """Push what paths can carry on which every arc leads one step further from the source."""
        tried = [0] * len(self.arcs)
        path = list[int]()
        while True:
            node = self.head[path[-1]] if path else _SOURCE
            if node == _SINK:
                self._push(path)
                path.clear()
                continue
            arcs = self.arcs[node]
            while tried[node] < len(arcs) and not self._leads(
                arcs[tried[node]], distance[node] + 1, distance
            ):
                tried[node] += 1
            if tried[node] < len(arcs):
                path.append(arcs[tried[node]])
            elif path:
                tried[self.head[path.pop() ^ 1]] += 1
            else:
                return

    def _leads(self, arc: int, onwards: int, distance: list[int]) -> bool:
        return self.room[arc] > 0 and distance[self.head[arc]] == onwards

    def _push(self, path: list[int]) -> None:
        carried = min(self.room[arc] for arc in path)
        for arc in path:
            self.room[arc] -= carried
            self.room[arc ^ 1] += carried
