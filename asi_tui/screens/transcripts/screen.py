"""The screen: a list of experiments, and the text of one of them or of all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from asi_tui import outside, words
from asi_tui.lines import BLANK, Row, clip, pad, row, rule
from asi_tui.longtext import Document, Place
from asi_tui.screens.base import Watch
from asi_tui.screens.keys import Key
from asi_tui.screens.transcripts.blocks import BLOCK, OUTPUT, Block, HeardBlock
from asi_tui.screens.transcripts.gather import Gatherer, experiment_of
from asi_tui.screens.transcripts.listing import EVERYTHING, PICK, Listing, busiest

LIST_WIDTH = 36
WIDE = 110
FAR = 10**6
"""Scrolling by more than this means to an end."""


class TranscriptsScreen(Watch):
    """Follows the newest activity until one looks elsewhere. Only what is in view is ever wrapped."""

    NAME = "Transcripts"
    SHORT = "Talk"
    SCROLLS = True
    SEARCHES = True

    def __init__(self) -> None:
        super().__init__()
        self.chosen = ""
        self.follow = True
        self.role = ""
        self.pinned = False
        self.in_list = False
        self.place = Place()
        self.block = ""
        self.hit: Place | None = None
        self.listing = Listing()
        self.gatherer = Gatherer()
        self.document = Document([])
        self.items: Sequence[Block | HeardBlock] = []
        self.text_width = 80
        self._first: tuple[int, int] = (0, 0)

    # --- drawing ---------------------------------------------------------------------------------------------------

    def body(self, width: int, height: int) -> list[Row]:
        """The list beside the text where there is room, else the one that has the keys."""
        ids = self.listing.ids(self.model)
        if not ids and not self.model.texts.heard:
            return [rule("transcripts", width), row((" no agent has said anything yet", "dim"))]
        self._choose(ids)
        wide = width >= WIDE
        if self.in_list and not wide:
            return self.listing.rows(self.model, self.chosen, width, height, True)
        self.text_width = width - LIST_WIDTH - 3 if wide else width
        text = self._reading(self.text_width, height)
        if not wide:
            return text
        listed = self.listing.rows(self.model, self.chosen, LIST_WIDTH, height, self.in_list)
        listed += [BLANK] * (height - len(listed))
        text += [BLANK] * (height - len(text))
        return [(*pad(a, LIST_WIDTH), (" │ ", "rule"), *b) for a, b in zip(listed, text, strict=True)]

    def _choose(self, ids: list[str]) -> None:
        known = self.model.state.experiments
        if self.chosen == EVERYTHING:
            return
        if self.chosen not in known or (self.follow and not self.pinned):
            self.chosen = busiest(self.model, ids).id if ids else EVERYTHING

    def _reading(self, width: int, height: int) -> list[Row]:
        self.page = max(1, height - 1)
        self._lay_out()
        document = self.document
        if self.follow:
            first = document.last(width, self.page)
        else:
            line, piece = document.resolve(self.place)
            end = document.last(width, self.page)
            first = min((line, piece), end)
        self._first = first
        drawn = document.rows(*first, width, self.page)
        hit = document.resolve(self.hit)[0] if self.hit is not None else -1
        rows = [_pointed(one, width) if line == hit else clip(one, width) for line, one in drawn]
        last = drawn[-1][0] + 1 if drawn else 0
        head = rule(self._title(), width, self._where(first[0], last))
        if not document.total:
            rows = [row((f" {self._nothing()}", "dim"))]
        return [head, *rows]

    def _lay_out(self) -> None:
        """Gather what there is and lay it out; the lines themselves are not looked at."""
        if self.chosen == EVERYTHING:
            self.items = self.gatherer.heard(self.model)
        else:
            found = self.model.state.experiments[self.chosen]
            blocks = self.gatherer.gather(self.asi.library, self.model, found, self.role)
            if self.role and not blocks and self.role not in (*self.gatherer.roles(), OUTPUT):
                self.role = ""
                blocks = self.gatherer.gather(self.asi.library, self.model, found, "")
            for block in blocks:
                block.chosen = block.key == self.block
            self.items = blocks
        self.document = Document(self.items)

    def _title(self) -> str:
        if self.chosen == EVERYTHING:
            return "everything"
        found = self.model.state.experiments[self.chosen]
        role = f", {self.role} only" if self.role else ""
        return f"{found.id} {words.title(found)}{role}"

    def _where(self, first: int, last: int) -> str:
        total = self.document.total
        state = "following" if self.follow else ""
        lines = f"{first + 1:,}–{last:,} of {total:,}" if last - first < total else ""
        return " · ".join(part for part in (state, lines) if part)

    def _nothing(self) -> str:
        if self.chosen != EVERYTHING and self.gatherer.on_its_way:
            return "on its way …"
        if self.chosen != EVERYTHING and self.gatherer.error:
            return f"the engine did not answer: {self.gatherer.error}"
        return f"nothing by {self.role}" if self.role else "nothing was said here"

    # --- keys ------------------------------------------------------------------------------------------------------

    def keys(self) -> list[Key]:
        """Following, folding, choosing; what applies now."""
        if not self.listing.ids(self.model) and not self.model.texts.heard:
            return []
        return self._list_keys() if self.in_list else self._text_keys()

    def _list_keys(self) -> list[Key]:
        def by(rows: int) -> Callable[[], object]:
            return lambda: self._step(rows)

        return [
            Key(("enter", "tab", "right", "l", "escape"), "Enter", "read", "to the text", self._to_text),
            Key(("up", "k"), "↑", "", "the experiment above", by(-1), False),
            Key(("down", "j"), "↑↓", "choose", "the experiment below", by(1)),
            Key(("pageup", "ctrl+b"), "PgUp", "", "a page up", by(-self.page), False),
            Key(("pagedown", "space", "ctrl+f"), "PgDn", "", "a page down", by(self.page), False),
            Key(("home", "g"), "Home", "", "everything", by(-FAR), False),
            Key(("end", "G"), "End", "", "the oldest experiment", by(FAR), False),
            Key(("x",), "x", "experiment", "the story of the experiment", self._open_experiment),
        ]

    def _text_keys(self) -> list[Key]:
        keys = []
        if not self.follow or self.pinned:
            word = "newest" if self.follow else "follow"
            keys.append(Key(("f",), "f", word, "follow the newest text; again: the newest activity", self._follow))
        if self.chosen == EVERYTHING:
            keys.append(Key(("e",), "e", "one", "the conversation of one experiment", self._everything))
        else:
            keys += [
                Key(("t", "enter"), "t", "fold", "fold or unfold this block", self._toggle),
                Key(("left", "h"), "←", "", "the block before", lambda: self._block_step(-1), False),
                Key(("right", "l"), "←→", "block", "the next block", lambda: self._block_step(1)),
                Key(("r",), "r", "role", "only one role: all, each agent, what trials print", self._next_role),
                Key(("z",), "z", "", "fold or unfold all blocks", self._toggle_all, False),
                Key(("e",), "e", "all", "all streams at once, in the order of time", self._everything),
            ]  # fmt: skip
        return [
            *keys,
            Key(("tab", "shift+tab"), "Tab", "list", "choose among the experiments", self._to_list),
            Key(("o",), "o", "pager", "this text in $PAGER", self._page_out),
            Key(("x",), "x", "experiment", "the story of the experiment", self._open_experiment),
        ]

    def open(self, target: str) -> None:
        """A head folds, a row of the list is chosen; everything else as everywhere."""
        if target.startswith(BLOCK):
            self.block = target.removeprefix(BLOCK)
            self._toggle()
        elif target.startswith(PICK):
            self._show(target.removeprefix(PICK))
        else:
            super().open(target)

    def choose(self, experiment: str, block: str = "") -> None:
        """Show one experiment's conversation, from its beginning or from one of its blocks on."""
        self._show(experiment)
        self.follow, self.in_list, self.place, self.block = False, False, Place(block), block
        self.role = "" if block else self.role

    def _show(self, name: str) -> None:
        if name != self.chosen:
            self.block, self.hit, self.place = "", None, Place()
        self.chosen, self.pinned = name, True
        self.follow = name == EVERYTHING or name in self.model.texts

    def _step(self, by: int) -> None:
        ids = [EVERYTHING, *self.listing.ids(self.model)]
        index = ids.index(self.chosen) if self.chosen in ids else 0
        self._show(ids[max(0, min(len(ids) - 1, index + by))])

    def _to_text(self) -> None:
        self.in_list = False

    def _to_list(self) -> None:
        self.in_list = True

    def _everything(self) -> None:
        if self.chosen == EVERYTHING:
            self.chosen, self.pinned, self.follow = "", False, True
        else:
            self._show(EVERYTHING)

    def _follow(self) -> None:
        if self.follow and self.chosen != EVERYTHING:
            self.pinned = False
        self.follow, self.hit = True, None

    def _next_role(self) -> None:
        roles = ["", *(role for role in self.gatherer.roles() if role != OUTPUT), OUTPUT]
        self.role = roles[(roles.index(self.role) + 1) % len(roles)] if self.role in roles else ""
        self.block, self.place, self.hit = "", Place(), None

    def _open_experiment(self) -> None:
        name = self.chosen
        if name == EVERYTHING and self.document.total:
            name = experiment_of(self.items[self.document.at(self._first[0])[0]])
        super().open(name if name != EVERYTHING else "")

    # --- blocks ----------------------------------------------------------------------------------------------------

    def _current(self) -> Block | None:
        """The block that was chosen, else the one at the top of the view."""
        number = self.document.find_item(self.block)
        if number is None and self.document.total:
            number = self.document.at(self._first[0])[0]
        found = self.items[number] if number is not None else None
        return found if isinstance(found, Block) else None

    def _toggle(self) -> None:
        block = self._current()
        if block is not None:
            self._fold(block, not block.folded)
            self.block = block.key

    def _fold(self, block: Block, folded: bool) -> None:
        if self.follow:
            self.place = self.document.place(*self._first)
            self.follow = False
            self.pinned = True
        self.gatherer.folds[block.key] = block.folded = folded

    def _toggle_all(self) -> None:
        blocks = [one for one in self.items if isinstance(one, Block)]
        folded = any(not one.folded for one in blocks)
        for block in blocks:
            self._fold(block, folded)

    def _block_step(self, by: int) -> None:
        """The next block; the view moves only when its head is not in it."""
        if not self.document.total:
            return
        number = self.document.find_item(self.block)
        if number is None:
            number = self.document.at(self._first[0])[0] - (by > 0)
        number = max(0, min(len(self.items) - 1, number + by))
        self.block = self.items[number].key
        line = self.document.start(number)
        shown = {one for one, _ in self.document.rows(*self._first, self.text_width, self.page)}
        self.place = self.document.place(*(self._first if line in shown else (line, 0)))
        self.follow, self.pinned = False, True

    # --- scrolling and searching -----------------------------------------------------------------------------------

    def scroll_lines(self, lines: int) -> None:
        """Scrolling stops following; the place stays with the text."""
        document, width = self.document, self.text_width
        if abs(lines) >= FAR:
            first = (0, 0) if lines < 0 else document.last(width, self.page)
        else:
            first = document.move(*self._first, lines, width)
            first = min(first, document.last(width, self.page))
        self._first, self.place = first, document.place(*first)
        self.follow, self.pinned, self.block = False, True, ""

    def _ask_words(self) -> None:
        self.gatherer.prefetch = True  # prompts are read from the engine while the words are being typed
        super()._ask_words()

    def find(self, text: str, step: int) -> bool:
        """Go to the next place that reads `text`, also inside folded blocks: the one it is in unfolds."""
        folded = [one for one in self.items if isinstance(one, Block) and one.folded]
        now = self.hit or self.document.place(*self._first)
        for block in folded:
            block.folded = False
        whole = Document(self.items)
        # The first search looks at the line at the top too; the next one goes on behind what was found.
        begin = whole.resolve(now)[0] - (0 if self.hit is not None or step < 0 else 1)
        line = whole.search(text, begin, step) if whole.total else None
        for block in folded:
            block.folded = True
        if line is None:
            self.hit = None
            return False
        found = self.items[whole.at(line)[0]]
        self.hit = whole.place(line)
        if isinstance(found, Block):
            self.gatherer.folds[found.key] = found.folded = False
        self.document = Document(self.items)
        above = self.document.move(self.document.resolve(self.hit)[0], 0, -(self.page // 3), self.text_width)
        self.place, self.follow, self.pinned, self.block = self.document.place(*above), False, True, ""
        return True

    def seek(self, text: str, step: int) -> None:
        """A new word begins where one looks."""
        if text != self.sought:
            self.hit = None
        super().seek(text, step)

    # --- out -------------------------------------------------------------------------------------------------------

    def copied(self) -> str:
        """The whole text that is shown, with what is folded."""
        return "\n".join(item.whole() for item in self.items)

    def _page_out(self) -> None:
        self.run_worker(outside.page(self.asi, self.copied(), f"transcript-{self.chosen.strip('*') or 'all'}"))


def _pointed(line: Row, width: int) -> Row:
    """The line that a search has found, with a sign at its beginning."""
    if not line:
        return line
    (text, style), *rest = line
    return clip((("▸" + text[1:], style), *rest), width)
