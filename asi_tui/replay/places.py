"""Words for a place in a recorded run: a time, a share, a record's number, an experiment."""

from __future__ import annotations

import re
import time

from asi_tui.replay.book import Book

HELP = "14:05 · 2026-03-01 14:05 · +1h30m · 40% · 0.4 · 1234 (a record) · e0007 · start · end"

_CLOCK = re.compile(r"(?:(\d{4}-\d\d-\d\d)[ T])?(\d{1,2}):(\d\d)(?::(\d\d))?\Z")
_SINCE = re.compile(r"\+?(?=\d)(?:(\d+)d)?\s*(?:(\d+)h)?\s*(?:(\d+)m(?:in)?)?\s*(?:(\d+)s)?\Z")
_UNITS = (86_400, 3_600, 60, 1)


def place(text: str, book: Book) -> int:
    """The record that a person means. Raises `ValueError` with one line."""
    text = text.strip()
    if not book.total:
        raise ValueError("nothing is recorded")
    if text in ("start", "begin", "end", ""):
        return book.total if text == "end" else 1
    if text in book.opened:
        return book.opened[text]
    if text.endswith("%"):
        return _share(text[:-1], 100.0, book)
    if text.removeprefix("#").isdecimal():
        seq = int(text.removeprefix("#"))
        if not 1 <= seq <= book.total:
            raise ValueError(f"record {seq:,} is not there; the last one is {book.total:,}")
        return seq
    if re.fullmatch(r"\d*\.\d+", text):
        return _share(text, 1.0, book)
    if (found := _CLOCK.match(text)) is not None:
        return book.at_time(_clock(found, book))
    if (found := _SINCE.match(text)) is not None and any(found.groups()):
        seconds = sum(int(value) * unit for value, unit in zip(found.groups(), _UNITS, strict=True) if value)
        return book.at_time(book.time_of(1) + seconds)
    raise ValueError(f"{text[:40]!r} is no place of this run; {HELP}")


def _share(text: str, whole: float, book: Book) -> int:
    try:
        share = float(text) / whole
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"{text[:20]!r} is no share of a run; 40% or 0.4")
    return max(1, round(share * book.total))


def _clock(found: re.Match[str], book: Book) -> float:
    """A time of day: the first one after the run began, or on the day that was named."""
    begin = time.localtime(book.time_of(1))
    day = time.strptime(found[1], "%Y-%m-%d") if found[1] else begin
    hour, minute, second = int(found[2]), int(found[3]), int(found[4] or 0)
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError(f"{found[0]} is no time of day")
    when = time.mktime((day.tm_year, day.tm_mon, day.tm_mday, hour, minute, second, 0, 0, -1))
    if not found[1] and when + (60 if found[4] is None else 1) <= book.time_of(1):
        when += 86_400
    return when
