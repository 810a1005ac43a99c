"""The list of experiments that have something to read."""

from __future__ import annotations

from collections.abc import Hashable

from asi_tui import words
from asi_tui.lines import Row, clip, fit, pad, row, rule, tagged
from asi_tui.model import Model
from store.state import Experiment

PICK = "pick:"
"""What a click on a row leads to, before the experiment's id."""

EVERYTHING = "*"


class Listing:
    """The newest first; looked through again only when something was recorded."""

    def __init__(self) -> None:
        self._known: tuple[Hashable, list[str]] = ((), [])

    def ids(self, model: Model) -> list[str]:
        """Experiments with a conversation, a proposal or a live stream, the newest first."""
        stamp = (model.state.seq, id(model.state), tuple(model.texts))
        if self._known[0] != stamp:
            talked = {call.experiment for call in model.state.calls.values()} | set(model.texts)
            newest = reversed(model.state.experiments.values())
            self._known = (stamp, [one.id for one in newest if one.motivation or one.id in talked])
        return self._known[1]

    def rows(self, model: Model, chosen: str, width: int, height: int, focus: bool) -> list[Row]:
        """The part around the chosen one."""
        ids = [EVERYTHING, *self.ids(model)]
        index = ids.index(chosen) if chosen in ids else 0
        room = height - 1
        first = max(0, min(index - room // 2, len(ids) - room))
        rows = [rule("experiments", width, f"{len(ids) - 1:,}")]
        for one in ids[first : first + room]:
            rows.append(self._row(model, one, one == chosen, width, focus))
        return rows

    def _row(self, model: Model, name: str, chosen: bool, width: int, focus: bool) -> Row:
        mark = "▸" if chosen else " "
        if name == EVERYTHING:
            text, style = f"{mark}everything, in the order of time", ""
        else:
            found = model.state.experiments[name]
            live = "●" if name in model.texts else " "
            text = f"{mark}{fit(words.short_id(found), 6)}{live}{fit(words.STEPS[found.step], 9)} {words.title(found)}"
            style = "" if found.open else "dim"
        style = ("cursor" if focus else "strong") if chosen else style
        return tagged(pad(clip(row((text, style)), width), width, style), PICK + name)


def busiest(model: Model, ids: list[str]) -> Experiment:
    """Where something happens: the experiment that changed last, those that are open before the others."""
    newest = [model.state.experiments[one] for one in ids[:200]]
    return max(newest, key=lambda one: (one.open and one.origin != "baseline", one.changed))
