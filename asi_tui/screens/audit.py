"""Screen 8, audit: every record of the journal in human words, newest first, and the proof that none was changed.

Pages come from the engine as one scrolls. New records appear on top while one is at the top; else a line counts them.
"""

from __future__ import annotations

import time

from asi_tui import words
from asi_tui.blind import Me, blind
from asi_tui.lines import BLANK, Row, Span, clip, fit, pad, paragraph, restyle, row, rule, tagged
from asi_tui.records import PAGE, Filter, Records, look_of, said, subject, who
from asi_tui.screens.base import Watch
from asi_tui.screens.keys import Key
from engine.client.protocol import AuditLine, Verified

FRESH_SECONDS = 1.0
"""New records are asked for at most so often."""

DETAIL_ROWS = 6
WIDE = 130


class AuditScreen(Watch):
    """A list of records, the chosen one's details below."""

    NAME = "Audit"
    SHORT = "Audit"

    def __init__(self) -> None:
        super().__init__()
        self.filter = Filter()
        self.records = Records()
        self.cursor = 0
        self._asked: tuple[float, int] = (0.0, -1)
        self._last_filter: list[str] = []
        self._verify = 0
        self._verify_since = 0.0
        self.verdict: Verified | str | None = None

    # --- data ------------------------------------------------------------------------------------------------------

    @property
    def chosen(self) -> AuditLine | None:
        """The record that the cursor is on."""
        lines = self.records.lines
        return lines[self.cursor] if self.cursor < len(lines) else None

    def _fetch(self, wanted: int) -> str:
        """Ask for what is missing; returns what went wrong."""
        held, seq, now = self.filter, self.model.state.seq, time.monotonic()
        behind = self._asked[1] != seq or (held == Filter() and self.records.begun and self.records.newest < seq)
        if behind and now - self._asked[0] >= FRESH_SECONDS:
            self._asked = (now, seq)
        entry = self.asi.library.audit(self._asked, held.experiment, held.asked, 0, PAGE)
        if entry.value is not None:
            self.records.take_top(entry.value, held, self.cursor == 0 and self.top == 0, entry.stamp[1])
        error = entry.error
        records = self.records
        if records.begun and records.before and wanted > len(records.lines):
            older = self.asi.library.audit("old", held.experiment, held.asked, records.before, PAGE)
            error = error or older.error
            if older.value is not None and older.stamp == "old":
                records.take_older(older.value, held)
                self.asi.model.version += 1
        return error

    def _newer(self) -> str:
        """How many records are newer than what is shown."""
        records = self.records
        if not records.begun or (self.cursor == 0 and self.top == 0):
            return ""
        if self.filter == Filter():
            count = self.model.state.seq - records.newest
            return f"{count:,} newer, g goes there" if count > 0 else ""
        sign = "+" if records.more else ""
        return f"{len(records.newer)}{sign} newer, g goes there" if records.newer else ""

    # --- drawing ---------------------------------------------------------------------------------------------------

    def body(self, width: int, height: int) -> list[Row]:
        """The rule with the verdict on the chain, the list, the chosen record."""
        detail = DETAIL_ROWS if height >= 14 else 0
        head = self._head(width)
        room = max(1, height - len(head) - detail)
        self.page = room
        error = self._fetch(self.cursor + 2 * room)
        lines = self.records.lines
        self.cursor = max(0, min(self.cursor, len(lines) - 1))
        newer = self._newer()
        if newer:
            room -= 1
            head.append(row((f" ↑ {newer}", "accent")))
        if not lines:
            return [*head, *self._empty(error, width)]
        self.top = max(0, min(max(self.top, self.cursor - room + 1), self.cursor, max(0, len(lines) - room)))
        shown = [self._known(line) for line in lines[self.top : self.top + room]]
        rows = [self._line(line, width, self.top + index == self.cursor) for index, line in enumerate(shown)]
        if len(rows) < room and (error or self.records.before):
            rows.append(row((f" {error or self._searching()}", "warn" if error else "dim")))
        rows += [BLANK] * (room - len(rows))
        return [*head, *rows, *(self._detail(self._known(lines[self.cursor]), width, detail) if detail else [])]

    def _known(self, line: AuditLine) -> AuditLine:
        """A record, without what this person may not know before deciding."""
        return blind(self.model.state, Me(self.asi.who, {}), line)

    def _searching(self) -> str:
        return f"older records come … searched back to {self.records.before:,}"

    def _head(self, width: int) -> list[Row]:
        """The title with the filter, and what is known of the chain."""
        told = self.filter.told()
        note, tone = self._verdict_words(width)
        title = f"audit: {told}" if told else "audit"
        line = rule(title, width, note)
        rows = [tuple((text, tone if note and text.strip() == note else style) for text, style in line)]
        if isinstance(self.verdict, Verified) and self.verdict.problems:
            seq, what = self.verdict.problems[0]
            more = len(self.verdict.problems) - 1
            text = f"{f'record {seq:,}: ' if seq else ''}{what}{f', and {more:,} more problems' if more else ''}"
            rows += paragraph(text, width, "bad")[:2]
        return rows

    def _verdict_words(self, width: int) -> Span:
        """The rule's right side: the progress of a check, its outcome, or that `v` makes one."""
        if self._verify:
            self._take_verdict()
        if self._verify:
            return (f"checking chain, blobs, approvals … {words.age(time.monotonic() - self._verify_since)}", "warn")
        found = self.verdict
        if found is None:
            seq = self.model.state.seq
            return (f"{seq:,} records, v checks the chain" if seq else "", "dim")
        if isinstance(found, str):
            return (fit(f"not checked: {found}", min(len(found) + 13, width // 2)).strip(), "warn")
        if found.problems:
            return (f"{words.plural(len(found.problems), 'problem')} in {found.records:,} records", "bad")
        return (f"chain, blobs and approvals good up to {found.records:,}, head {found.head[:4]}…", "good")

    def _take_verdict(self) -> None:
        entry = self.asi.library.verified(self._verify)
        if entry.stamp == self._verify:
            self.verdict, self._verify = entry.value, 0
        elif entry.error and entry.failed_at > self._verify_since:
            self.verdict, self._verify = entry.error, 0

    def _empty(self, error: str, width: int) -> list[Row]:
        if error:
            return paragraph(f"not there: {error}", width, "warn")
        if not self.records.begun:
            return [row((" waiting for the engine …" if not self.model.connected else " on its way …", "dim"))]
        if self.records.before:
            return [row((f" {self._searching()}", "dim"))]
        if self.filter != Filter():
            return [row((" no record is like this; Esc clears the filter", "dim"))]
        return [row((" nothing has been recorded yet: whatever happens stands here, in order, for ever", "dim"))]

    def _line(self, line: AuditLine, width: int, chosen: bool) -> Row:
        """One record: time, who, what, about what, in words."""
        look = look_of(line)
        day = time.strftime("%d %b ", time.localtime(line.time)) if width >= WIDE else ""
        number = f"{line.seq:>9,}  " if width >= WIDE else ""
        about = fit(subject(line, self.model.state.experiments.get(line.experiment)), 8)
        spans: list[Span] = [
            ((" " + number), "faint"), (f"{day}{words.clock(line.time)}  ", "dim"),
            (fit(who(line.actor), 9) + " ", "strong" if line.actor.startswith("person:") else "dim"),
            (look.sign + " ", look.tone), (fit(look.word, 12) + " ", look.tone), (about + " ", "dim"),
        ]  # fmt: skip
        left = width - sum(len(text) for text, _ in spans)
        made = (*row(*spans), (fit(said(line), max(8, left)), look.tone if look.tone in ("bad", "strong") else ""))
        made = clip(made, width)
        made = restyle(made, "cursor", width) if chosen else made
        return tagged(made, f"record:{line.seq}")

    def _detail(self, line: AuditLine, width: int, height: int) -> list[Row]:
        """The chosen record in full."""
        when = time.strftime("%a %d %b %Y %H:%M:%S", time.localtime(line.time))
        title = f"record {line.seq:,}"
        rows = [rule(title, width, self._where())]
        about = f"   about {line.experiment}" if line.experiment else ""
        rows.append(clip(row((" who ", "dim"), line.actor, ("   kind ", "dim"), line.kind, ("   when ", "dim"), when,
                             (about, "dim")), width))  # fmt: skip
        size = 16 if width < 100 else 32 if width < 160 else 64
        chain = row((" hash ", "dim"), line.hash[:size] or "?", ("  ←  ", "dim"), line.prev[:size] or "the beginning")
        rows.append(clip(chain, width))
        rows += paragraph(line.text, width)
        return [pad(one, width) for one in rows[:height]] + [BLANK] * max(0, height - len(rows))

    def _where(self) -> str:
        count = len(self.records.lines)
        more = "+" if self.records.before else ""
        return f"{self.cursor + 1:,} of {count:,}{more}"

    # --- keys ------------------------------------------------------------------------------------------------------

    def keys(self) -> list[Key]:
        """Moving, filtering, checking."""
        line, held = self.chosen, self.filter
        keys = []
        if line is not None:
            keys.append(Key(("enter",), "Enter", "open", "open what the record is about", self._open_chosen,
                            bool(self._about(line))))  # fmt: skip
        keys.append(Key(("f",), "f", "filter", "records that hold some words", self._ask_filter))
        if line is not None:
            keys += [
                Key(("e",), "e", "its exp.", "only records about this record's experiment",
                    lambda: self._narrow("experiment", line.experiment), bool(line.experiment)),
                Key(("w",), "w", "who", "only records by who caused this one",
                    lambda: self._narrow("actor", line.actor)),
                Key(("t",), "t", "type", "only records of this kind", lambda: self._narrow("kind", line.kind)),
            ]  # fmt: skip
        if held != Filter():
            keys.insert(0, Key(("escape",), "Esc", "clear", "take back the newest filter", self._clear))
        keys.append(Key(("v",), "v", "verify", "check chain, blobs and approvals of the whole run", self.verify))
        return [*keys, *self._moves()]

    def _moves(self) -> list[Key]:
        return [
            Key(("up", "k"), "↑", "", "one record up", lambda: self._move(-1), False),
            Key(("down", "j"), "↓", "", "one record down", lambda: self._move(1), False),
            Key(("pageup", "ctrl+b"), "PgUp", "", "one page up", lambda: self._move(-self.page), False),
            Key(("pagedown", "space", "ctrl+f"), "PgDn", "", "one page down", lambda: self._move(self.page), False),
            Key(("home", "g"), "g", "", "to the newest record", lambda: self._move(-(10**9)), False),
            Key(("end", "G"), "G", "", "to the oldest record that has come", lambda: self._move(10**9), False),
        ]

    def _move(self, by: int) -> None:
        self.cursor = max(0, min(len(self.records.lines) - 1, self.cursor + by))
        if not self.cursor:
            self.top = 0

    def wheel(self, lines: int) -> None:
        """The wheel moves the cursor."""
        self._move(lines)

    def open(self, target: str) -> None:
        """A click chooses a record."""
        seq = int(target.removeprefix("record:"))
        found = next((index for index, line in enumerate(self.records.lines) if line.seq == seq), self.cursor)
        self.cursor = found

    def _about(self, line: AuditLine) -> str:
        """What a record leads to: a request that waits, else an experiment."""
        state = self.model.state
        if line.kind == "approval.requested":
            request = line.text.removeprefix("approval ").split(" ")[0]
            if request in state.requests and state.requests[request].decision is None:
                return request
        return line.experiment if line.experiment in state.experiments else ""

    def _open_chosen(self) -> None:
        line = self.chosen
        about = self._about(line) if line is not None else ""
        if about:
            self.asi.open(about)
        else:
            self.say("this record is about the whole run")

    # --- filter and check ------------------------------------------------------------------------------------------

    def _ask_filter(self) -> None:
        self.ask("records with these words:", lambda typed: self._narrow("words", " ".join(typed.split())))

    def _narrow(self, part: str, value: str) -> None:
        """Set one part of the filter; an empty value clears it."""
        if getattr(self.filter, part) == value:
            return
        if part in self._last_filter:
            self._last_filter.remove(part)
        if value:
            self._last_filter.append(part)
        self.filter = self.filter._replace(**{part: value})
        self.records, self.cursor, self.top, self._asked = Records(), 0, 0, (0.0, -1)

    def _clear(self) -> None:
        if self._last_filter:
            self._narrow(self._last_filter[-1], "")

    def verify(self) -> None:
        """Have the engine check the whole record."""
        if self._verify:
            return
        self._verify_since = time.monotonic()
        self._verify = time.monotonic_ns()
        self.draw()
