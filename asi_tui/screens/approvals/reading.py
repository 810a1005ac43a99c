"""What a person has had in view: how long each card was on the screen, and which share of its rows."""

from __future__ import annotations

from collections.abc import Hashable


class Reading:
    """One card. A share counts within one layout: after a change of the width rows are other rows."""

    def __init__(self) -> None:
        self.seen = 0.0
        self._before = 0.0
        self._since: float | None = None
        self._layout: Hashable = None
        self._rows: set[int] = set()

    def begin(self, now: float) -> None:
        """The card comes up."""
        if self._since is None:
            self._since = now

    def end(self, now: float) -> None:
        """The card is put away."""
        self._before, self._since = self.seconds(now), None

    def seconds(self, now: float) -> float:
        """How long it has been on the screen in all."""
        return self._before + (now - self._since if self._since is not None else 0.0)

    def view(self, layout: Hashable, first: int, rows: int, total: int) -> None:
        """Rows `first` to `first + rows` of `total` are in view."""
        if layout != self._layout:
            self._layout, self._rows = layout, set()
        self._rows.update(range(first, min(total, first + rows)))
        self.seen = max(self.seen, len(self._rows) / total if total else 0.0)
