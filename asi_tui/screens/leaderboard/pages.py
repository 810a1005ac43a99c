"""The leaderboard by pages: what is there is shown, what will be wanted next is asked for before it is.

A changed order or condition takes over when its first page has come; one that the engine refuses changes nothing.
"""

from __future__ import annotations

from collections.abc import Hashable

from asi_tui.collect import View
from asi_tui.library import Entry, Library
from engine.client.protocol import BoardPage, BoardRow

PAGE = 200


class Pages:
    """The rows of one view; `settle` first, once a drawing."""

    def __init__(self) -> None:
        self.view = View()
        self.wanted = View()
        self.total = 0
        self.error = ""
        self.refused = ""
        self.arrived = False
        self._library: Library | None = None
        self._stamp: Hashable = None

    def want(self, view: View) -> None:
        """Change to another view as soon as the engine has answered for it."""
        self.wanted, self.refused = view, ""

    def settle(self, library: Library, stamp: Hashable) -> bool:
        """Take over the wanted view if it has come; True when it has. `refused` says what was wrong with it."""
        self._library, self._stamp = library, stamp
        changed = False
        if self.wanted != self.view:
            entry = self._entry(self.wanted, 0)
            if entry.value is not None and not entry.error:
                self.view, changed = self.wanted, True
            elif entry.error:
                self.refused, self.wanted = entry.error, self.view
        first = self._entry(self.view, 0)
        page = self._page(first)
        self.error = first.error
        if page is not None:
            self.total, self.arrived = page.total, True
        return changed

    def around(self, top: int, height: int) -> None:
        """Ask for the pages in view, and for those before and after."""
        first, last = max(0, top // PAGE), (top + height) // PAGE
        for number in (*range(first, last + 1), last + 1, first - 1):
            if number >= 0 and (number == 0 or number * PAGE < self.total):
                self._entry(self.view, number)

    def row(self, index: int) -> BoardRow | None:
        """A row, if its page is there."""
        number, place = divmod(index, PAGE)
        page = self._page(self._entry(self.view, number)) if 0 <= index < self.total else None
        return page.rows[place] if page is not None and place < len(page.rows) else None

    def place(self, experiment: str, near: int) -> int | None:
        """Where an experiment stands now, among the page that `near` is on and its neighbours; None if it is not."""
        here = near // PAGE
        for number in (here, here - 1, here + 1):
            if number < 0 or number * PAGE >= self.total:
                continue
            page = self._page(self._entry(self.view, number))
            for place, row in enumerate(page.rows if page is not None else []):
                if row.experiment == experiment:
                    return number * PAGE + place
        return None

    def _entry(self, view: View, number: int) -> Entry:
        assert self._library is not None
        return self._library.board(self._stamp, view.order, view.reverse, view.where, number * PAGE, PAGE)

    @staticmethod
    def _page(entry: Entry) -> BoardPage | None:
        page = entry.value
        return page if isinstance(page, BoardPage) else None
