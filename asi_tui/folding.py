"""What of the tree of experiments is unfolded, and the lines that it takes then.

By itself the way to the best and to what is in flight is unfolded; children that nobody looks for share a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from asi_tui.ancestry import Ancestry, Node

SHOWN_CHILDREN = 12
"""So many quiet children of a node have lines of their own; the others share one that can be unfolded."""

RAILS = 60
"""Levels of descent that a line remembers for its indent."""

_RAILS = (1 << RAILS) - 1

LineKind = Literal["node", "quiet", "dead"]


class Line(NamedTuple):
    """One line of the unfolded tree: a node, or a group of its children that share a line.

    rails: a bit for each of the last `RAILS` levels above, the nearest one lowest: whether its branch goes on below.
    last: whether this is the last child. unfolded: whether what is below it has lines.
    """

    node: Node
    kind: LineKind
    rails: int
    depth: int
    last: bool
    unfolded: bool
    members: tuple[Node, ...] = ()

    @property
    def key(self) -> str:
        """What the cursor remembers."""
        return self.node.id if self.kind == "node" else f"{self.kind}:{self.node.id}"


class Folding:
    """Which nodes are unfolded: the ancestors of the best and of what is in flight, and what a person has chosen."""

    def __init__(self) -> None:
        self.unfolded: set[str] = set()
        self.folded: set[str] = set()
        self.all_folded = False
        self.version = 0

    def turn(self, key: str, unfolded: bool) -> None:
        """Fold or unfold one line, by its key."""
        (self.unfolded if unfolded else self.folded).add(key)
        (self.folded if unfolded else self.unfolded).discard(key)
        self.version += 1

    def everything(self) -> None:
        """Fold everything; when that is so already, go back to what is unfolded by itself."""
        self.all_folded = not (self.all_folded and not self.unfolded)
        self.unfolded.clear()
        self.folded.clear()
        self.version += 1

    def reveal(self, tree: Ancestry, node: Node) -> None:
        """Unfold what stands between the roots and a node."""
        below = node
        while (above := below.parent) is not None:
            self.turn(above.id, True)
            children = tree.children(above)
            if below.dead and not below.children:
                self.turn(f"dead:{above.id}", True)
            elif len(children.living) > SHOWN_CHILDREN:
                self.turn(f"quiet:{above.id}", True)
            below = above

    def lines(self, tree: Ancestry) -> list[Line]:
        """All lines of the tree as it is folded now."""
        spine = set() if self.all_folded else tree.spine()
        loud = spine | set(() if self.all_folded else tree.open)
        if tree.best is not None and not self.all_folded:
            loud.add(tree.best.id)
        out: list[Line] = []
        stack = [Line(root, "node", 0, 0, True, self._is_unfolded(root, spine)) for root in reversed(tree.roots)]
        while stack:
            line = stack.pop()
            out.append(line)
            if line.unfolded and line.kind == "node":
                stack += reversed(list(self._below(tree, line, spine, loud)))
        return out

    def _is_unfolded(self, node: Node, spine: set[str]) -> bool:
        if not node.children:
            return False
        key = node.experiment.id
        return key in self.unfolded or (key in spine and key not in self.folded)

    def _below(self, tree: Ancestry, line: Line, spine: set[str], loud: set[str]) -> Iterator[Line]:
        """The lines of a node's children, with groups for those that nobody looks for."""
        node = line.node
        living, dead = tree.children(node)
        rails = ((line.rails << 1) | (not line.last)) & _RAILS if line.depth else 0
        depth = line.depth + 1
        shown = living
        quiet: tuple[Node, ...] = ()
        if len(living) > SHOWN_CHILDREN:
            first = living[:SHOWN_CHILDREN]
            rest = living[SHOWN_CHILDREN:]
            shown = first + [child for child in rest if child.id in loud]
            quiet = tuple(child for child in rest if child.id not in loud)
        groups = bool(quiet or dead)
        for index, child in enumerate(shown):
            last = index == len(shown) - 1 and not groups
            yield Line(child, "node", rails, depth, last, self._is_unfolded(child, spine))
        if quiet:
            yield from self._group(line, "quiet", quiet, rails, spine, not dead)
        if dead:
            yield from self._group(line, "dead", tuple(dead), rails, spine, True)

    def _group(
        self, above: Line, kind: LineKind, members: tuple[Node, ...], rails: int, spine: set[str], last: bool
    ) -> Iterator[Line]:
        """The line of a group, and those of its members when it is unfolded."""
        unfolded, depth = f"{kind}:{above.node.id}" in self.unfolded, above.depth + 1
        yield Line(above.node, kind, rails, depth, last and not unfolded, unfolded, members)
        if unfolded:
            for index, member in enumerate(members):
                end = last and index == len(members) - 1
                yield Line(member, "node", rails, depth, end, self._is_unfolded(member, spine))
