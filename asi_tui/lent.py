"""One program that is lent the terminal, and the emergency stop for as long as it has it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

GRACE_SECONDS = 1.0
"""What the program gets to leave by itself after the stop was pressed, before it is killed."""


class NotStarted(Exception):
    """The program could not be started; the text says why."""


class Lent:
    """Runs a program in the foreground of our terminal; `press` is called when its quit key is pressed there."""

    def __init__(self, command: Sequence[str], press: Callable[[], object]) -> None:
        self.command = list(command)
        self._press = press
        self._process: subprocess.Popen[bytes] | None = None
        self._over = False

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """While it lasts Ctrl+\\ presses the stop, and no key interrupts or suspends the app itself.

        Handlers, not SIG_IGN: a program inherits what is ignored, but not what is handled.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers: dict[int, Any] = {
            signal.SIGQUIT: self._stop, signal.SIGINT: _nothing, signal.SIGTSTP: _nothing,
        }  # fmt: skip
        previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._press()
        self.end()

    def end(self) -> None:
        """Have the program leave, and see to it that it does."""
        self._over = True
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            threading.Thread(target=self._kill_late, args=(process,), daemon=True, name="lent-end").start()
        except RuntimeError:  # no more threads: nobody can wait
            process.kill()

    def _kill_late(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()

    def run(self) -> int:
        """Run it to its end and return its code; blocks. The terminal is as before then, whatever it did to it."""
        descriptor = sys.__stdin__.fileno() if sys.__stdin__ is not None else 0
        before = _attributes(descriptor)
        try:
            try:
                self._process = process = subprocess.Popen(self.command)
            except OSError as error:
                raise NotStarted("there is no such program" if isinstance(error, FileNotFoundError)
                                 else error.strerror or str(error)) from error  # fmt: skip
            if self._over:  # pressed while it was being started
                process.kill()
            return _wait(process)
        finally:
            _restore(descriptor, before)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """A key that means nothing to the app; the program has it too."""


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end. A program that stops itself (Ctrl+Z) goes on at once: nobody else could wake it."""
    while process.poll() is None:
        try:
            seen = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
        except ChildProcessError:
            break
        if seen is None or seen.si_code not in (os.CLD_STOPPED, os.CLD_TRAPPED):
            break
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOHANG)
            os.kill(process.pid, signal.SIGCONT)
    return process.wait()


def _attributes(descriptor: int) -> list[Any] | None:
    try:
        return termios.tcgetattr(descriptor)
    except termios.error:
        return None


def _restore(descriptor: int, before: list[Any] | None) -> None:
    """Put the terminal back into our hands and into its old mode: a program that was killed has not done so."""
    if before is None:
        return
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})  # taking it back from behind is no offence
    try:
        with contextlib.suppress(OSError):
            os.tcsetpgrp(descriptor, os.getpgrp())
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSANOW, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
