"""A program in a pseudo-terminal whose line can be slow or far away, and the times at which its picture changes."""

from __future__ import annotations

import collections
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from bench.tui.picture import Picture

SLICE = 0.01
ENOUGH = 65_536


class NoAnswer(Exception):
    """The picture did not become what was waited for."""


class Terminal:
    """A program in a pty. `speed` is the line's bytes per second (0: as fast as it goes), `delay` its one-way time."""

    def __init__(
        self, command: Sequence[str], environment: dict[str, str], size: tuple[int, int], speed: float = 0.0,
        delay: float = 0.0,
    ) -> None:  # fmt: skip
        self.picture = Picture(*size)
        self.speed, self.delay = speed, delay
        self.received = 0
        self.first_byte = 0.0
        self.reading = True
        self._watch: Callable[[Picture], bool] | None = None
        self._seen = threading.Event()
        self._seen_at = 0.0
        self._under_way: collections.deque[tuple[float, bytes]] = collections.deque()
        self._typed: collections.deque[tuple[float, bytes]] = collections.deque()
        self._lock = threading.Lock()
        self._over = False
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self.started = time.perf_counter()
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=_own(environment),
                                        start_new_session=True)  # fmt: skip
        os.close(slave)
        self._thread = threading.Thread(target=self._run, daemon=True, name="terminal")
        self._thread.start()

    def press(self, keys: bytes) -> float:
        """Type; returns when it was typed. On a far line the keys arrive later."""
        now = time.perf_counter()
        if self.delay:
            self._typed.append((now + self.delay, keys))
        else:
            os.write(self._master, keys)
        return now

    def wait(self, shows: Callable[[Picture], bool], seconds: float = 10.0) -> float:
        """Wait until the picture shows something; returns when it did. Raises `NoAnswer`."""
        with self._lock:
            if shows(self.picture):
                return time.perf_counter()
            self._seen.clear()
            self._watch = shows
        end = time.perf_counter() + seconds
        while not (came := self._seen.wait(0.25)) and time.perf_counter() < end and self.process.poll() is None:
            pass
        self._watch = None
        if not came:
            raise NoAnswer("the picture is\n" + self.picture.text())
        return self._seen_at

    def answer(self, keys: bytes, shows: Callable[[Picture], bool], seconds: float = 10.0) -> float:
        """Seconds from pressing keys to a picture that answers them."""
        return -self.press(keys) + self.wait(shows, seconds)

    def look(self) -> str:
        """The picture as text, now."""
        with self._lock:
            return self.picture.text()

    def usage(self) -> tuple[float, float]:
        """CPU seconds used so far, and resident bytes."""
        process = psutil.Process(self.process.pid)
        times = process.cpu_times()
        return times.user + times.system, float(process.memory_info().rss)

    def close(self) -> None:
        """End the program."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        self._over = True
        self._thread.join(5)
        os.close(self._master)

    # --- the line --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        credit, last = 0.0, time.perf_counter()
        while not self._over:
            self._deliver()
            now = time.perf_counter()
            credit, last = min(self.speed * 0.05, credit + (now - last) * self.speed), now
            room = int(credit) if self.speed else ENOUGH
            if room < 1 or not self.reading:
                time.sleep(SLICE / 5)
                continue
            if not select.select([self._master], [], [], SLICE if not self.delay else SLICE / 10)[0]:
                continue
            try:
                data = os.read(self._master, room)
            except OSError:  # the program has ended
                return
            credit -= len(data)
            self._under_way.append((time.perf_counter() + self.delay, data))

    def _deliver(self) -> None:
        now = time.perf_counter()
        while self._typed and self._typed[0][0] <= now:
            os.write(self._master, self._typed.popleft()[1])
        while self._under_way and self._under_way[0][0] <= now:
            self._take(self._under_way.popleft()[1])

    def _take(self, data: bytes) -> None:
        with self._lock:
            self.first_byte = self.first_byte or time.perf_counter()
            self.received += len(data)
            self.picture.feed(data)
            watch = self._watch
            if watch is not None and watch(self.picture):
                self._seen_at, self._watch = time.perf_counter(), None
                self._seen.set()


def _own(environment: dict[str, str]) -> dict[str, str]:
    """The environment of a good terminal, whatever this benchmark was started in."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    here = str(Path(__file__).parents[2])
    return {**kept, "PYTHONPATH": here, "TERM": "xterm-256color", "COLORTERM": "truecolor", **environment}
