"""Who descends from whom: the tree of all experiments, and which branch owns the pool.

The tree follows the state: a change of one experiment changes one node and what its ancestors say of their
descendants, so that a run of many thousands costs little per event. Nothing here recurses: a line of descent may be
thousands deep. No widget in this file.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from typing import NamedTuple

from store.state import Experiment, RunState

POOL = 50
"""The pool that shares are counted in: so many of the best."""

COLLAPSE_SHARE = 0.5
COLLAPSE_FROM = 12
"""One branch with more than this share of at least so many scored proposals is a collapse; the engine warns by it."""

MANY_CHANGES = 64
"""From so many changes at once on, what ancestors say of descendants is counted anew in one pass."""

NOTHING = float("-inf")
"""The score of what has none."""


class Node:
    """One experiment in the tree, and what is known of everything below it.

    size: how many descend from it. best: the highest score in the subtree, itself included.
    founder: its oldest ancestor that is no baseline, perhaps itself; None for a baseline.
    """

    __slots__ = (
        "best", "changed", "children", "dead", "experiment", "founder", "generation", "order", "parent", "score",
        "size", "sorted",
    )  # fmt: skip

    def __init__(self, experiment: Experiment, parent: Node | None, order: int) -> None:
        self.experiment, self.parent, self.order = experiment, parent, order
        self.children: list[Node] = []
        self.generation: int = 0 if parent is None else parent.generation + 1
        self.size = 0
        self.founder: Node | None = None
        if experiment.origin != "baseline":
            self.founder = parent.founder if parent is not None and parent.founder is not None else self
        self.sorted: Children | None = None
        self.look()
        self.best = self.score

    @property
    def id(self) -> str:
        """The experiment's id."""
        return self.experiment.id

    def look(self) -> None:
        """Take from the experiment what may have changed."""
        found = self.experiment
        self.changed = found.changed
        scored = found.scored
        outcome = found.outcome
        self.score = scored.score if scored is not None and outcome in ("", "ranked") else NOTHING
        self.dead = found.step == "closed" and self.score == NOTHING

    def path(self) -> list[Node]:
        """From the root to this node."""
        out = [self]
        while (above := out[-1].parent) is not None:
            out.append(above)
        return out[::-1]


class Children(NamedTuple):
    """The children of a node in the order in which they are shown: living ones best first, then dead leaves."""

    living: list[Node]
    dead: list[Node]


class Share(NamedTuple):
    """A branch and how much it owns: among the pool's best, and among all scored proposals."""

    founder: Node
    in_pool: int
    scored: int
    best: float


class Shares(NamedTuple):
    """How the pool and all scored proposals divide among branches, the largest first."""

    branches: list[Share]
    pool: int
    baselines_in_pool: int
    scored: int

    @property
    def largest(self) -> Share | None:
        """The branch that owns most of all scored proposals."""
        return max(self.branches, key=lambda share: (share.scored, -share.founder.order), default=None)

    @property
    def collapsed(self) -> bool:
        """One ancestor owns more than half of all scored proposals, of which there are enough to say so."""
        largest = self.largest
        return largest is not None and self.scored >= COLLAPSE_FROM and largest.scored / self.scored > COLLAPSE_SHARE


class Rank(NamedTuple):
    """A scored experiment's place among all: best first, ties by age, as on the leaderboard."""

    worse: float
    opened: float
    order: int


def _rank(node: Node) -> Rank:
    return Rank(-node.score, node.experiment.opened, node.order)


class Ancestry:
    """The tree, kept up to date by `follow`; `version` changes when something in it has."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.roots: list[Node] = []
        self.open: dict[str, Node] = {}
        self.best: Node | None = None
        self.version = 0
        self._experiments: dict[str, Experiment] | None = None
        self._seq = -1
        self._list: list[Node] = []
        self._ranking: list[Rank] = []
        self._founded: Counter[Node | None] = Counter()
        self._shares: Shares | None = None

    def behind(self, state: RunState) -> int:
        """How many experiments of the state are not in the tree yet."""
        known = len(self._list) if state.experiments is self._experiments else 0
        return len(state.experiments) - known

    def follow(self, state: RunState) -> None:
        """Take over what the state says now."""
        if state.experiments is not self._experiments:
            self._begin(state.experiments)
        elif state.seq == self._seq:
            return
        self._seq = state.seq
        # Each record gives the experiment that it touches a time of its own: another object, even when it is equal.
        stale = [node for node in self._list if node.experiment.changed is not node.changed]
        fresh = list(state.experiments.values())[len(self._list) :]
        if not stale and not fresh:
            return
        added = [self._add(experiment) for experiment in fresh]
        self._update(stale, added)
        self.version += 1

    def _begin(self, experiments: dict[str, Experiment]) -> None:
        self._experiments = experiments
        self.nodes, self.roots, self.open, self._list, self.best = {}, [], {}, [], None
        self._ranking, self._founded, self._shares = [], Counter(), None
        self.version += 1

    def _add(self, experiment: Experiment) -> Node:
        # A parent that was not there before its child is none: so there is never a circle.
        parent = self.nodes.get(experiment.parent)
        node = Node(experiment, parent, len(self._list))
        self.nodes[experiment.id] = node
        self._list.append(node)
        if parent is None:
            self.roots.append(node)
        else:
            parent.children.append(node)
        return node

    def _update(self, stale: list[Node], added: list[Node]) -> None:
        many = len(stale) + len(added) > MANY_CHANGES
        moved = [node for node in added if node.score != NOTHING]
        for node in stale:
            before = node.score
            node.look()
            if node.score != before:
                moved.append(node)
                if not many and before != NOTHING:
                    self._unrank(node, before)
        for node in (*stale, *added):
            if node.experiment.step == "closed":
                self.open.pop(node.id, None)
            else:
                self.open[node.id] = node
            if node.parent is not None:
                node.parent.sorted = None
        if many:
            self._count_anew()
        else:
            self._count_along(moved, added)
        if moved:
            self._shares = None
            self.best = next((node for node in map(self._ranked, self._ranking) if node.founder is not None), None)

    def _count_anew(self) -> None:
        for node in self._list:
            node.size, node.best, node.sorted = 0, node.score, None
        for node in reversed(self._list):  # children come after their parents
            above = node.parent
            if above is not None:
                above.size += node.size + 1
                if node.best > above.best:
                    above.best = node.best
        scored = [node for node in self._list if node.score != NOTHING]
        self._ranking = sorted(map(_rank, scored))
        self._founded = Counter(node.founder for node in scored)

    def _count_along(self, moved: list[Node], added: list[Node]) -> None:
        for node in added:
            above = node.parent
            while above is not None:
                above.size += 1
                above = above.parent
        for node in moved:
            if node.score != NOTHING:
                insort(self._ranking, _rank(node))
                self._founded[node.founder] += 1
            current: Node | None = node
            while current is not None:
                best = max((child.best for child in current.children), default=NOTHING)
                best = max(best, current.score)
                if best == current.best and current is not node:
                    break
                current.best = best
                current = current.parent
                if current is not None:
                    current.sorted = None

    def _ranked(self, rank: Rank) -> Node:
        return self._list[rank.order]

    def _unrank(self, node: Node, score: float) -> None:
        """Take a score that is not true any more out of the ranking."""
        rank = Rank(-score, node.experiment.opened, node.order)
        place = bisect_left(self._ranking, rank)
        if place < len(self._ranking) and self._ranking[place] == rank:
            del self._ranking[place]
            self._founded[node.founder] -= 1

    # --- what is shown ---------------------------------------------------------------------------------------------

    def children(self, node: Node) -> Children:
        """The children of a node, in order; kept until one of them changes."""
        if node.sorted is None:
            living = [child for child in node.children if not child.dead or child.children]
            living.sort(key=lambda child: (-child.best, child.order))
            dead = [child for child in node.children if child.dead and not child.children]
            node.sorted = Children(living, dead)
        return node.sorted

    def spine(self) -> set[str]:
        """The nodes with something below them that nobody should have to look for: the best, and what is in flight."""
        out: set[str] = set()
        for node in (*self.open.values(), self.best):
            above = node.parent if node is not None else None
            while above is not None and above.id not in out:
                out.add(above.id)
                above = above.parent
        return out

    def shares(self) -> Shares:
        """How the pool divides among branches; kept until a score changes."""
        if self._shares is None:
            self._shares = self._divide()
        return self._shares

    def _divide(self) -> Shares:
        pool = [self._ranked(rank) for rank in self._ranking[:POOL]]
        in_pool = Counter(node.founder for node in pool)
        branches = [
            Share(founder, in_pool[founder], number, founder.best)
            for founder, number in self._founded.items()
            if founder is not None and number
        ]
        branches.sort(key=lambda share: (-share.in_pool, -share.scored, share.founder.order))
        return Shares(branches, len(pool), in_pool[None], sum(share.scored for share in branches))
