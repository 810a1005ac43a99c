"""The tree of all experiments, with a cursor, folding, searching, and the way from the root to what is chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from asi_tui import words
from asi_tui.ancestry import Ancestry, Node
from asi_tui.folding import Folding, Line
from asi_tui.lines import BLANK, Row, beside, clip, paragraph, restyle, row, rule, tagged
from asi_tui.screens.base import Watch
from asi_tui.screens.keys import Key
from asi_tui.screens.lineage.aside import panel, path_rows, share_line
from asi_tui.screens.lineage.lines import FOLD, Seen, columns_for, head_row, tree_row
from asi_tui.screens.lineage.path import PathScreen

WIDE = 120
NARROWEST_PANEL, WIDEST_PANEL = 46, 84
AT_ONCE = 4_000
"""A tree of more experiments than this is built by a thread, while the screen says so."""

EXPLANATION = (
    "Nothing is here yet. The baselines become the roots; every proposal hangs below the program that it was made "
    "from, with its score and with what it gained or lost against that parent."
)


class LineageScreen(Watch):
    """Screen 6, lineage."""

    NAME = "Lineage"
    SHORT = "Tree"
    SEARCHES = True

    def __init__(self) -> None:
        super().__init__()
        self.ancestry = Ancestry()
        self.folding = Folding()
        self.cursor = ""
        self._lines: list[Line] = []
        self._places: dict[str, int] = {}
        self._stamp: object = None
        self._building = False

    # --- data ------------------------------------------------------------------------------------------------------

    def _follow(self) -> bool:
        """Bring the tree up to date; False while a thread builds a large one."""
        state = self.model.state
        if not self._building and self.ancestry.behind(state) > AT_ONCE:
            self._building = True
            self.run_worker(self._build())
        if self._building:
            return False
        self.ancestry.follow(state)
        self._unfold()
        return True

    async def _build(self) -> None:
        tree = Ancestry()
        try:
            await asyncio.to_thread(tree.follow, self.model.state)
            self.ancestry, self._stamp = tree, None
        finally:
            self._building = False
        if self.is_current:
            self.draw()

    def _unfold(self) -> None:
        """The lines as they are folded now; the cursor stays, or goes to what its line was folded into."""
        stamp = (id(self.ancestry), self.ancestry.version, self.folding.version)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        self._lines = self.folding.lines(self.ancestry)
        self._places = {line.key: place for place, line in enumerate(self._lines)}
        if self.cursor not in self._places:
            self.cursor = self._nearest(self.cursor)

    def _nearest(self, key: str) -> str:
        node = self.ancestry.nodes.get(key.split(":")[-1])
        while node is not None:
            for kind in ("", "dead:", "quiet:"):
                known = f"{kind}{node.id}"
                if known in self._places and (known == node.id or key != node.id):
                    return known
            node = node.parent
        if self.ancestry.best is not None and self.ancestry.best.id in self._places:
            return self.ancestry.best.id
        return self._lines[0].key if self._lines else ""

    @property
    def line(self) -> Line | None:
        """The line that the cursor is on."""
        place = self._places.get(self.cursor)
        return None if place is None else self._lines[place]

    # --- drawing ---------------------------------------------------------------------------------------------------

    def body(self, width: int, height: int) -> list[Row]:
        """The tree, and beside or below it what is chosen."""
        if not self._follow():
            number = len(self.model.state.experiments)
            text = f" the tree of {number:,} experiments is being put together …"
            return [rule("lineage", width), row((text, "dim"))]
        line = self.line
        if line is None:
            return [rule("lineage", width), *paragraph(EXPLANATION, min(width, 100), "dim")]
        asking = {request.experiment for request in self.model.state.requests.values() if request.decision is None}
        seen = Seen(self.model, self.ancestry.best, asking)
        if width >= WIDE:
            side = max(NARROWEST_PANEL, min(WIDEST_PANEL, int(width * 0.38)))
            left = width - side - 2
            right = panel(self.ancestry, line, seen, side, height)
            return beside(self._tree_rows(seen, left, height), left, right[:height], 2)
        foot = self._foot(line, width, height)
        return [*self._tree_rows(seen, width, height - len(foot)), *foot]

    def _tree_rows(self, seen: Seen, width: int, height: int) -> list[Row]:
        self.page = max(1, height - 2)
        place = self._places[self.cursor]
        self.top = max(0, min(max(self.top, place - self.page + 1), place, max(0, len(self._lines) - self.page)))
        columns = columns_for(width)
        rows = [rule("lineage", width, self._summary()), clip(head_row(columns), width)]
        for line in self._lines[self.top : self.top + self.page]:
            drawn = clip(tree_row(line, seen, columns), width)
            if line.key == self.cursor:
                target = line.node.id if line.kind == "node" else FOLD + line.key
                drawn = tagged(restyle(drawn, "cursor", width), target)
            rows.append(drawn)
        return rows + [BLANK] * (height - len(rows))

    def _summary(self) -> str:
        tree = self.ancestry
        parts = [f"{len(tree.nodes):,} experiments"]
        if tree.open:
            parts.append(f"{len(tree.open)} in flight")
        where = self.position(len(self._lines))
        if where:
            parts = [f"lines {where}", *parts]
        return ", ".join(parts)

    def _foot(self, line: Line, width: int, height: int) -> list[Row]:
        """The way to what is chosen, and the shares of the branches, where there is no room beside the tree."""
        if height < 10:
            return []
        rows = path_rows(line.node, width, 2 if height >= 18 else 1)
        hint = "d shows what each step changed" if line.node.parent is not None and line.kind == "node" else ""
        title = rule("from the root to here", width, hint)
        return [title, *rows[: 2 if height >= 18 else 1], share_line(self.ancestry.shares(), width)]

    # --- keys ------------------------------------------------------------------------------------------------------

    def keys(self) -> list[Key]:
        """Moving, folding, jumping, opening."""
        line = self.line
        if line is None or self._building:
            return []

        def by(lines: int) -> Callable[[], None]:
            return lambda: self._move(lines)

        group = line.kind != "node"
        keys = [Key(("enter",), "Enter", "unfold" if group else "open",
                    "unfold or fold these" if group else "open the experiment's story", self._open)]  # fmt: skip
        foldable = group or bool(line.node.children)
        keys += [
            Key(("left", "h"), "←", "", "fold, or go to the parent", self._left, False),
            Key(("right", "l"), "←→", "fold" if line.unfolded else "unfold", "unfold, or go to the first child",
                self._right, foldable),
        ]  # fmt: skip
        if line.node.parent is not None and not group:
            keys.append(Key(("d",), "d", "diffs", "what each step from the root to here changed", self._path))
        if self.ancestry.best is not None:
            keys.append(Key(("*",), "*", "best", "to the best experiment so far", self._best))
        if self.ancestry.open:
            keys.append(Key(("i",), "i", "at work", "to the next experiment in flight", self._in_flight))
        keys.append(Key(("z",), "z", "fold all", "fold everything; again: as it is by itself", self._fold_all))
        page, half = self.page, self.page // 2
        return [
            *keys,
            Key(("up", "k"), "↑", "", "one line up", by(-1), False),
            Key(("down", "j"), "↓", "", "one line down", by(1), False),
            Key(("pageup", "ctrl+b"), "PgUp", "", "one page up", by(-page), False),
            Key(("pagedown", "space", "ctrl+f"), "PgDn", "", "one page down", by(page), False),
            Key(("ctrl+u",), "^U", "", "half a page up", by(-half), False),
            Key(("ctrl+d",), "^D", "", "half a page down", by(half), False),
            Key(("home", "g"), "Home", "", "to the first line", by(-(10**9)), False),
            Key(("end", "G"), "End", "", "to the last line", by(10**9), False),
        ]

    def wheel(self, lines: int) -> None:
        """The wheel moves the cursor."""
        if self._lines:
            self._move(lines)

    def open(self, target: str) -> None:
        """A click on a fold mark folds; anything else is opened."""
        if target.startswith(FOLD):
            self.cursor = target.removeprefix(FOLD)
            self._toggle()
            return
        if target in self._places:
            self.cursor = target
        super().open(target)

    def find(self, text: str, step: int) -> bool:
        """Go to the next experiment, in the order of their opening, whose title or id reads `text`."""
        folded = text.lower()
        nodes = list(self.ancestry.nodes.values())
        at = self.line
        start = at.node.order if at is not None else 0
        for offset in range(1, len(nodes) + 1):
            node = nodes[(start + step * offset) % len(nodes)]
            if folded in node.id.lower() or folded in words.title(node.experiment).lower():
                self._go(node)
                return True
        return False

    def _move(self, by: int) -> None:
        place = self._places.get(self.cursor, 0)
        self.cursor = self._lines[max(0, min(len(self._lines) - 1, place + by))].key

    def _go(self, node: Node) -> None:
        """Unfold the way to a node and put the cursor there."""
        if node.id not in self._places:
            self.folding.reveal(self.ancestry, node)
            self.cursor = node.id
            self._unfold()
        self.cursor = node.id

    def _open(self) -> None:
        line = self.line
        if line is None:
            return
        if line.kind == "node":
            self.open(line.node.id)
        else:
            self._toggle()

    def _toggle(self) -> None:
        line = self.line
        if line is not None and (line.kind != "node" or line.node.children):
            self.folding.turn(line.key, not line.unfolded)
            self._unfold()

    def _left(self) -> None:
        line = self.line
        if line is None:
            return
        if line.unfolded:
            self._toggle()
        elif line.kind != "node":
            self.cursor = line.node.id
        elif line.node.parent is not None:
            self.cursor = line.node.parent.id

    def _right(self) -> None:
        line = self.line
        if line is None or (line.kind == "node" and not line.node.children):
            return
        if line.unfolded:
            self._move(1)
        else:
            self._toggle()

    def _best(self) -> None:
        if self.ancestry.best is not None:
            self._go(self.ancestry.best)

    def _in_flight(self) -> None:
        """The next one in the order of opening, after the one that the cursor is on."""
        waiting = sorted(self.ancestry.open.values(), key=lambda node: node.order)
        if not waiting:
            return
        line = self.line
        here = line.node.order if line is not None and line.kind == "node" else -1
        self._go(next((node for node in waiting if node.order > here), waiting[0]))

    def _fold_all(self) -> None:
        self.folding.everything()
        self._unfold()

    def _path(self) -> None:
        line = self.line
        if line is not None and line.kind == "node":
            self.app.push_screen(PathScreen([node.id for node in line.node.path()]))
