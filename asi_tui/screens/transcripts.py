"""Screen 3, transcripts: what agents are asked and answer, and what trials print, as inert text."""

from __future__ import annotations

import json

from asi_tui import words
from asi_tui.lines import BLANK, Row, clip, fit, pad, row, rule, wrap
from asi_tui.safe import clean_lines
from asi_tui.screens.base import Watch
from asi_tui.screens.keys import Key
from engine.client.protocol import TranscriptEntry
from store.state import Experiment

LIST_WIDTH = 34
WIDE = 110


class TranscriptsScreen(Watch):
    """One experiment's conversation; follows the newest activity until one looks elsewhere."""

    NAME = "Transcripts"
    SHORT = "Talk"
    SCROLLS = True

    def __init__(self) -> None:
        super().__init__()
        self.chosen = ""
        self.follow = True
        self.prompts = False
        self._built: tuple[object, list[Row]] = (None, [])

    def body(self, width: int, height: int) -> list[Row]:
        """The list of experiments beside the text where there is room, else the text alone."""
        listed = self._listed()
        if not listed:
            return [rule("transcripts", width), row((" no agent has said anything yet", "dim"))]
        known = self.model.state.experiments
        if self.follow or self.chosen not in known:
            self.chosen = self._busiest(listed).id
        found = known[self.chosen]
        text_width = width - LIST_WIDTH - 3 if width >= WIDE else width
        rows = self._text_rows(found, text_width)
        view = self.scrolled(rows, height - 1, self.follow)
        state = "following" if self.follow else "stopped, f follows"
        head = rule(f"{found.id} {words.title(found)}", text_width, f"{state}  {self.position(len(rows))}".strip())
        if width < WIDE:
            return [head, *view]
        listing = self._list_rows(listed, height)
        text = [head, *view]
        text += [BLANK] * (height - len(text))
        return [(*pad(a, LIST_WIDTH), (" │ ", "rule"), *b) for a, b in zip(listing, text, strict=True)]

    def choose(self, experiment: str) -> None:
        """Show one experiment's conversation from its beginning."""
        self.chosen, self.follow, self.top = experiment, False, 0

    def _listed(self) -> list[Experiment]:
        """Experiments that have something to read, the newest first."""
        talked = {call.experiment for call in self.model.state.calls.values()} | set(self.model.texts)
        found = [one for one in self.model.state.experiments.values() if one.id in talked or one.motivation]
        return sorted(found, key=lambda one: -one.opened)

    def _busiest(self, listed: list[Experiment]) -> Experiment:
        return max(listed, key=lambda one: (one.open and one.origin != "baseline", one.changed))

    def _list_rows(self, listed: list[Experiment], height: int) -> list[Row]:
        rows = [rule("experiments", LIST_WIDTH, str(len(listed)))]
        index = next((i for i, one in enumerate(listed) if one.id == self.chosen), 0)
        first = max(0, min(index - height // 2, len(listed) - (height - 1)))
        for one in listed[first : first + height - 1]:
            chosen = one.id == self.chosen
            style = "cursor" if chosen else "" if one.open else "dim"
            mark = "▸" if chosen else " "
            text = f"{mark}{fit(words.short_id(one), 6)} {fit(words.STEPS[one.step], 9)} {words.title(one)}"
            rows.append(pad(clip(row((text, style)), LIST_WIDTH), LIST_WIDTH, style))
        return rows + [BLANK] * (height - len(rows))

    # --- the text --------------------------------------------------------------------------------------------------

    def _text_rows(self, found: Experiment, width: int) -> list[Row]:
        calls = [call for call in self.model.state.calls.values() if call.experiment == found.id]
        stamp = (len(calls), tuple(call.reply for call in calls), found.step)
        turns = self.asi.library.transcript(found.id, stamp)
        live = self.model.texts.get(found.id, ())
        prompts = tuple(self.asi.library.blob(turn.prompt) or "" for turn in turns or [] if self.prompts)
        key = (found.id, width, stamp, id(turns), len(live), live[-1] if live else None, prompts, found.repairs)
        if self._built[0] != key:
            self._built = (key, self._build(found, turns, width, prompts))
        return self._built[1]

    def _build(
        self, found: Experiment, turns: list[TranscriptEntry] | None, width: int, prompts: tuple[str, ...]
    ) -> list[Row]:
        rows: list[Row] = []
        if turns is None:
            rows.append(row((" on its way …", "dim")))
        for index, turn in enumerate(turns or []):
            mark = "" if turn.ok else "  could not be used"
            head = f"{turn.role}, {turn.agent}  {words.clock(turn.time)}  {words.span(turn.seconds)}{mark}"
            rows += [row((f" ■ {head}", "title" if turn.ok else "warn"))]
            if index < len(prompts) and prompts[index]:
                rows += _indented(prompts[index], width, "faint")
            rows += [*_indented(_readable(turn.text), width, ""), BLANK]
        if turns == [] and found.motivation:
            rows += [*_indented(f"{found.motivation}\n\n{found.hypothesis}", width, ""), BLANK]
        if live := self.model.texts.get(found.id):
            role = ""
            text: list[str] = []
            for piece in live:
                if piece.role != role:
                    rows += _indented("".join(text), width, "") if text else []
                    rows.append(row((f" ▸ {piece.role}, live", "accent")))
                    role, text = piece.role, []
                text.append(piece.text)
            rows += _indented("".join(text), width, "") if text else []
        return rows

    # --- keys ------------------------------------------------------------------------------------------------------

    def keys(self) -> list[Key]:
        """Choosing, following, prompts."""
        if not self._listed():
            return []
        keys = [
            Key(("left",), "←", "newer", "the next newer experiment", lambda: self._step(-1)),
            Key(("right",), "→", "older", "the next older experiment", lambda: self._step(1)),
        ]
        if not self.follow:
            keys.append(Key(("f",), "f", "follow", "follow the newest activity", self._follow))
        word = "hide prompts" if self.prompts else "prompts"
        keys.append(Key(("t",), "t", word, "show or hide what the agents were asked", self._toggle_prompts))
        return keys

    def scroll_lines(self, lines: int) -> None:
        """Scrolling stops following."""
        self.follow = False
        super().scroll_lines(lines)

    def _step(self, by: int) -> None:
        ids = [one.id for one in self._listed()]
        index = ids.index(self.chosen) if self.chosen in ids else 0
        self.chosen = ids[max(0, min(len(ids) - 1, index + by))]
        self.follow, self.top = False, 0

    def _follow(self) -> None:
        self.follow = True

    def _toggle_prompts(self) -> None:
        self.prompts = not self.prompts


def _indented(text: str, width: int, style: str) -> list[Row]:
    return [row(("   " + piece, style)) for line in clean_lines(text) for piece in wrap(line, width - 4)]


def _readable(text: str) -> str:
    """JSON replies as an outline of `key: value`; everything else as it is."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        content = json.loads(text)
    except ValueError:
        return text
    if not isinstance(content, dict):
        return text
    parts = []
    for key, value in content.items():
        if isinstance(value, str):
            parts.append(f"{key}:\n{value}\n" if "\n" in value else f"{key}: {value}")
        elif isinstance(value, list):
            parts += [f"{key}:", *(f"  • {_flat(one)}" for one in value)]
        else:
            parts.append(f"{key}: {_flat(value)}")
    return "\n".join(parts)


def _flat(value: object) -> str:
    """One entry of a reply in a line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(inner)}" for key, inner in value.items())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
