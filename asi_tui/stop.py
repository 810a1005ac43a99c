"""The emergency stop as this terminal presses it: freeze at once, then kill after ten seconds or at a second press.

Everything happens in threads of its own, on the run directory alone. Neither the engine nor the connection nor the
app's event loop is needed, and none of them can hold it up.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from engine.client.kill import FreezeReport, KillReport, freeze_run, kill_run, survivors
from engine.client.records import write_latch

SLICE = 0.1
"""Seconds that a wait sleeps at a time."""

COUNTDOWN = 10.0
"""Seconds from the first press to the kill."""

PROOF_SECONDS = 30
"""How often, once a second, the proof is repeated after a kill."""

STOP_KEYS = frozenset({"ctrl+backslash", "f12"})
"""Fixed: configuration may add keys, never remove these."""

HOLD_KEY = "h"

REASON = "emergency stop from the terminal"

NO_THREAD = "the system gives no more threads"

_FIRST = ("amber", "cedar", "coral", "dune", "fern", "flint", "hazel", "ivory", "jade", "maple", "onyx", "pearl")
_SECOND = ("badger", "crane", "egret", "finch", "gannet", "heron", "ibis", "kestrel", "lynx", "marten", "newt", "otter")

StopPhase = Literal["ready", "freezing", "frozen", "held", "killing", "killed"]


def _started(thread: threading.Thread) -> bool:
    """Start a thread; False where the system gives no more of them."""
    try:
        thread.start()
    except RuntimeError:
        return False
    return True


class _Press:
    """One use of the button, from its first press on. A thread that outlives it can tell that it is over."""

    def __init__(self) -> None:
        self.kill = threading.Event()
        self.held = threading.Event()
        self.done = threading.Event()


class EmergencyStop:
    """One stop button. `press`, `hold` and `reset` may be called from any thread and return at once.

    Only where the machine gives no more threads (a fork bomb has them all) does `press` itself kill, and return then.

    The freezing, latching and killing functions are arguments so that a drill or a test can press the real button.
    """

    def __init__(
        self,
        root: Path,
        actor: str,
        *,
        freeze: Callable[[Path], FreezeReport] = freeze_run,
        latch: Callable[[Path, str, str], str] = write_latch,
        kill: Callable[..., KillReport] = kill_run,
        look_again: Callable[[KillReport], set[int]] = survivors,
        countdown: float = COUNTDOWN,
    ) -> None:
        self.root, self.actor, self.countdown = root, actor, countdown
        self.witness = f"{secrets.choice(_FIRST)}-{secrets.choice(_SECOND)}"
        self.on_change: Callable[[], None] = lambda: None
        self._freeze, self._latch, self._kill, self._look_again = freeze, latch, kill, look_again
        self._lock = threading.Lock()
        self._make_ready()

    def _make_ready(self) -> None:
        self.phase: StopPhase = "ready"
        self.pressed_at = 0.0
        self.frozen: FreezeReport | None = None
        self.latch_problem: str | None = None
        self.report: KillReport | None = None
        self.problems: list[str] = []
        self.proofs = 0
        self.repeats = True
        self.proved_at = 0.0
        self.alive: set[int] = set()
        self._press = _Press()
        self._deadline = 0.0

    @property
    def pressed(self) -> bool:
        """The button was pressed in this session."""
        return self.phase != "ready"

    @property
    def seconds_left(self) -> float:
        """Seconds until the kill, while it counts down."""
        return max(0.0, self._deadline - time.monotonic())

    def press(self) -> None:
        """First press: freeze, latch and count down. Any further press: kill now."""
        with self._lock:
            press = self._press
            if self.phase == "held" and not press.kill.is_set():  # nothing has been waiting since
                press.kill.set()
                work = self._finish
            elif self.phase != "ready":
                press.kill.set()
                return
            else:
                self.phase, self.pressed_at = "freezing", time.time()
                self._deadline = time.monotonic() + self.countdown
                work = self._run
            # Not a daemon thread: leaving the terminal must not take the kill back.
            if _started(threading.Thread(target=work, args=(press,), name="emergency-stop")):
                return
            if not press.kill.is_set():
                press.kill.set()  # nobody is there to count down
                self.problems.append(f"{NO_THREAD}: killed at once, without the countdown")
        work(press)

    def hold(self) -> None:
        """Stay frozen; only another press kills."""
        if self.phase in ("freezing", "frozen"):
            self._press.held.set()

    def reset(self) -> bool:
        """Make a held button ready for its next press, once the latch is lifted; False where it is not held.

        The button stays the same object, so that no press can go to one that is out of use: before the reset it kills,
        after it, it freezes.
        """
        with self._lock:
            if self.phase != "held" or self._press.kill.is_set():
                return False
            self._make_ready()
            return True

    def kill_now(self, timeout: float) -> None:
        """Press until it kills and wait for the report; for a terminal that goes away during the countdown."""
        if self.pressed and not self._press.held.is_set():
            self._press.kill.set()
            self.wait(timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the killing is over; True when it is, or when nothing is under way (not pressed, or held)."""
        if not self.pressed or (self.phase == "held" and not self._press.kill.is_set()):
            return True
        until = time.monotonic() + timeout if timeout is not None else float("inf")
        # In slices: a signal that the kernel gives to another thread is heard only when the main one wakes up.
        while not self._press.done.wait(max(0.0, min(SLICE, until - time.monotonic()))):
            if time.monotonic() >= until:
                return False
        return True

    def _advance(self, press: _Press, phase: StopPhase, only_from: tuple[StopPhase, ...]) -> None:
        with self._lock:
            if self._press is not press or self.phase not in only_from:
                return
            self.phase = phase
        self.on_change()

    def _run(self, press: _Press) -> None:
        self.on_change()
        if not _started(
            threading.Thread(target=self._freeze_and_latch, args=(press,), daemon=True, name="emergency-freeze")
        ):
            press.kill.set()  # what cannot be frozen is killed at once
            self.problems.append(f"{NO_THREAD}: nothing was frozen before the kill")
        while not press.kill.wait(0.02) and time.monotonic() < self._deadline:
            if press.held.is_set() and self._now_held(press):
                return
        self._finish(press)

    def _now_held(self, press: _Press) -> bool:
        """Held from now on, with nobody counting; False where another press came first."""
        with self._lock:
            if press.kill.is_set():
                return False
            self.phase = "held"
        self.on_change()
        return True

    def _finish(self, press: _Press) -> None:
        """Kill, and go on to prove it."""
        self._advance(press, "killing", ("freezing", "frozen", "held"))
        try:
            self.report = self._kill(self.root, actor=self.actor, reason=REASON)
        except Exception as error:  # whatever it was, the person must read it instead of waiting for a proof
            self.problems.append(f"the kill failed: {error}")
        self.proved_at = time.time()
        press.done.set()
        self._advance(press, "killed", ("killing",))
        if not _started(threading.Thread(target=self._repeat_proof, daemon=True, name="emergency-proof")):
            self.repeats = False
            self.on_change()

    def _freeze_and_latch(self, press: _Press) -> None:
        problems: list[str] = []
        try:
            frozen = self._freeze(self.root)
            if not frozen.complete:
                problems = frozen.errors or ["not everything could be frozen"]
        except Exception as error:  # what cannot be frozen is killed at once
            frozen, problems = None, [f"the freeze failed: {error}"]
            press.kill.set()
        if self._press is press:
            self.frozen = frozen
            self.problems += problems
        self._advance(press, "frozen", ("freezing",))
        problem = self._latch(self.root, self.actor, REASON)
        if self._press is press:
            self.latch_problem = problem
        self.on_change()

    def _repeat_proof(self) -> None:
        for _ in range(PROOF_SECONDS):
            if self.report is None:
                return
            self.alive = self._look_again(self.report)
            self.proofs, self.proved_at = self.proofs + 1, time.time()
            self.on_change()
            time.sleep(1.0)
