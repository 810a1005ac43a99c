"""What is measured; each function makes its own stage and returns figures."""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.tui.figures import KILOBYTES, MEGABYTES, MILLISECONDS, Figure, share, spread
from bench.tui.minimal import WORD
from bench.tui.picture import Picture
from bench.tui.stage import Moved, Sign, Stage, attached, cursor, running, signs, stage, try_answer
from bench.tui.terminal import Terminal

Size = tuple[int, int]
PAUSE = 0.3
STORM = 1_000
LOST = 10.0
"""An answer that has not come by then counts as having taken so long."""


def _attach_times(on: Stage, size: Size) -> tuple[float, float]:
    terminal = on.attach(size)
    try:
        shown = terminal.wait(running, 60)
        return terminal.first_byte - terminal.started, shown - terminal.started
    finally:
        terminal.close()


def _minimal_time(on: Stage, size: Size) -> float:
    terminal = Terminal([sys.executable, "-m", "bench.tui.minimal"], on.environment, size)
    try:
        return terminal.wait(lambda picture: WORD in picture.text(), 60) - terminal.started
    finally:
        terminal.close()


def attaching(home: Path, size: Size, rounds: int, experiments: int, events: int) -> list[Figure]:
    """From the start of the process to the first real picture, beside the least that the toolkit can do."""
    with stage(home / "small") as small, stage(home / "big", experiments=experiments, events=events) as big:
        minimal, first, picture, whole = [], [], [], []
        for _ in range(rounds):
            minimal.append(_minimal_time(small, size))
            byte, shown = _attach_times(small, size)
            first.append(byte)
            picture.append(shown)
            whole.append(_attach_times(big, size)[1])
    return [
        *spread("minimal app: first picture", minimal, None),
        Figure("attach: first byte, p50", statistics.median(first) * MILLISECONDS, "ms"),
        *spread("attach: first real picture", picture, None),
        Figure("attach: ratio to the minimal app, p50", share(picture, 0.5) / share(minimal, 0.5), "×", 2),
        Figure("attach: ratio to the minimal app, p95", share(picture, 0.95) / share(minimal, 0.95), "×", 2),
        *spread(f"attach: {experiments:,} experiments, {events:,} events", whole, 1_000),
    ]


# --- keys in a storm -------------------------------------------------------------------------------------------------


def _pressing(terminal: Terminal, known: list[Sign], seconds: float) -> tuple[list[float], list[float]]:
    """Times from key to picture: changes of screen, and moves of the cursor on the leaderboard and mission control."""
    screens: list[float] = []
    moves: list[float] = []
    end = time.perf_counter() + seconds
    board = next((sign for sign in known if sign.key == b"5"), None)
    for sign in itertools.cycle(known):
        if time.perf_counter() > end:
            return screens, moves
        if sign.shown(terminal.picture):
            continue
        took = try_answer(terminal, sign.key, sign.shown, LOST)
        screens.append(LOST if took is None else took)
        time.sleep(PAUSE)
        if sign is board:
            for key in (b"j", b"j", b"k", b"k"):  # and back: at the edge rows would move instead
                if cursor(terminal.picture):
                    took = try_answer(terminal, key, Moved(terminal), LOST)
                    moves.append(LOST if took is None else took)
                    time.sleep(PAUSE)
    return screens, moves


def _rate(terminal: Terminal, seconds: float) -> float:
    before = terminal.received
    time.sleep(seconds)
    return (terminal.received - before) / seconds


def rest(home: Path, size: Size, seconds: float) -> list[Figure]:
    """Bytes to the terminal and CPU time while nothing happens."""
    with stage(home / "rest") as on, attached(on, size) as terminal:
        time.sleep(1.0)
        cpu, _ = terminal.usage()
        rate = _rate(terminal, seconds)
        used = (terminal.usage()[0] - cpu) / seconds
    return [
        Figure("at rest: to the terminal", rate * KILOBYTES, "kB/s", 10),
        Figure("at rest: of one core", used * 100, "%"),
    ]


def storm(home: Path, size: Size, seconds: float, speed: float = 0.0) -> list[Figure]:
    """Keys while a thousand events a second come in; on a slow line where `speed` says so."""
    name = f"storm, {speed / 1e3:g} kB/s line" if speed else "storm"
    with stage(home / f"storm{speed:g}") as on:
        with attached(on, size) as terminal:
            known = signs(terminal)
        with attached(on, size, speed) as terminal:
            time.sleep(1.0)
            on.order(f"storm {STORM}")
            _pressing(terminal, known, max(2.0, seconds / 3))  # every screen once: what they keep is not growth
            (cpu, memory), begun, bytes_before = terminal.usage(), time.perf_counter(), terminal.received
            screens, moves = _pressing(terminal, known, seconds)
            took = time.perf_counter() - begun
            (cpu_after, memory_after), typed = terminal.usage(), terminal.received - bytes_before
            terminal.press(b"1")
            time.sleep(1.0)
            watching = _rate(terminal, 5.0)
    most = {0.0: 50, 50_000.0: 250}.get(speed)
    return [
        *spread(f"{name}: key to another screen", screens, most),
        *spread(f"{name}: key to a moved cursor", moves, most),
        Figure(f"{name}: to the terminal, watching", watching * KILOBYTES, "kB/s", 80),
        Figure(f"{name}: to the terminal, with keys", typed / took * KILOBYTES, "kB/s"),
        Figure(f"{name}: of one core", (cpu_after - cpu) / took * 100, "%"),
        Figure(f"{name}: memory", memory_after * MEGABYTES, "MiB"),
        Figure(f"{name}: memory grew, a minute", (memory_after - memory) * MEGABYTES * 60 / took, "MiB", 20),
    ]


# --- long things -----------------------------------------------------------------------------------------------------


def loads(home: Path, size: Size, lines: int, rows: int) -> list[Figure]:
    """From the key to a long transcript's end and to a long leaderboard's head, and a page of each."""
    figures = []
    with stage(home / "loads", lines=lines, rows=rows) as on, attached(on, size) as terminal:
        last = f"line {lines // 100 - 1} of what"
        cases: list[tuple[str, bytes, Callable[[Picture], bool]]] = [
            (f"{lines:,} transcript lines: shown", b"3", lambda picture: last in picture.text()),
            (f"{lines:,} transcript lines: a page up", b"\x1b[5~", _other(last)),
            (f"{rows:,} leaderboard rows: shown", b"5", lambda picture: "e00001" in picture.text()),
            (f"{rows:,} leaderboard rows: a page down", b"\x1b[6~", lambda picture: "e00001" not in picture.text()),
            (f"{rows:,} leaderboard rows: to the last", b"G", lambda picture: f"e{rows:05}" in picture.text()),
        ]
        for name, key, shows in cases:
            time.sleep(1.0)
            took = try_answer(terminal, key, shows, LOST)
            figures.append(Figure(name, (LOST if took is None else took) * MILLISECONDS, "ms", 200))
    return figures


def _other(words: str) -> Callable[[Picture], bool]:
    return lambda picture: words not in picture.text() and "line " in picture.text()


# --- far away --------------------------------------------------------------------------------------------------------


def far(home: Path, size: Size, round_trip: float) -> list[Figure]:
    """Keys while the engine is far from the app, and while the app is far from the terminal."""
    figures = []
    milliseconds = round_trip * MILLISECONDS
    for where, engine, line in (("engine", round_trip / 2, 0.0), ("terminal", 0.0, round_trip / 2)):
        with stage(home / where, delay=engine, rows=500) as on, attached(on, size, delay=line) as terminal:
            terminal.answer(b"5", lambda picture: "e00001" in picture.text(), 30)
            time.sleep(round_trip + 1.0)
            moves = []
            for key in (b"j", b"j", b"k", b"j", b"j", b"k", b"j", b"j"):
                took = try_answer(terminal, key, Moved(terminal), LOST)
                moves.append(LOST if took is None else took)
                time.sleep(PAUSE + round_trip)
        most = 50 if where == "engine" else milliseconds + 50
        figures += spread(f"{milliseconds:.0f} ms to the {where}: key to a moved cursor", moves, most)
    return figures
