"""What the terminal knows: the run's state, the live things beside it, and the line to the engine.

Messages are taken as they come and only change data; `version` counts the changes, and the screen is drawn from here
at its own pace. No widget in this file.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from asi_tui.facts import Facts
from asi_tui.lines import Row
from asi_tui.streams import Streams
from engine.client import protocol
from engine.client.connection import Connected, Lost
from store import events as ev
from store.state import Experiment, Request, RunState, Trial, fold


class Replay(Protocol):
    """What plays a finished run in place of an engine; screens show its bar and offer its keys."""

    def bar(self, width: int) -> Row:
        """The line that nobody can mistake for a live run's."""
        ...

    def keys(self) -> list[Any]:
        """Play, pause, faster, slower, jump."""
        ...


TICKER = 200
LOADS = 900
"""Frames of the machine's load that are kept: a quarter of an hour."""
CURVES = 64
POINTS = 20_000


class Happening(NamedTuple):
    """One line of the log."""

    time: float
    experiment: str
    text: str
    style: str = ""


class LoadPoint(NamedTuple):
    """One moment of the machine: shares of 1, milliseconds, and each GPU's utilisation, temperature and power."""

    cpu: float
    memory: float
    lag_ms: float
    devices: tuple[tuple[float, float, float], ...] = ()


def _load_point(load: protocol.LiveLoad) -> LoadPoint:
    devices = tuple((one.utilisation, one.temperature, one.power) for one in load.devices)
    return LoadPoint(load.cpu, load.memory_used / max(1.0, load.memory_total), load.loop_lag_ms, devices)


class Curve:
    """The points of one trial, merged from live frames and from what the engine had before."""

    def __init__(self) -> None:
        self.losses: dict[str, dict[int, float]] = {}
        self.scores: dict[str, dict[int, float]] = {}
        self.latest: protocol.LiveCurve | None = None
        self.total = 0

    def add(self, losses: list[protocol.CurvePoint], scores: list[protocol.CurvePoint]) -> None:
        """Take points in any order; a point that is known already changes nothing."""
        for series, points in ((self.losses, losses), (self.scores, scores)):
            for point in points:
                if self.total < POINTS:
                    known = series.setdefault(point.task, {})
                    self.total += point.step not in known
                    known[point.step] = point.value

    def tasks(self) -> list[str]:
        """Tasks with points, in order of appearance."""
        return list(dict.fromkeys([*self.losses, *self.scores]))


class Alarms:
    """What a person who looks elsewhere wants to hear of: a request, an anomaly, a cap, the end; once each."""

    LOUD = (ev.ApprovalRequested, ev.TrialAnomaly, ev.BudgetExceeded, ev.RunKilled, ev.RunStopped, ev.LeaseLost)

    def __init__(self) -> None:
        self._new = False

    def take(self, message: Any) -> None:
        """Look at a message; records that a snapshot stands for ring nothing."""
        if isinstance(message, protocol.Records):
            self._new |= any(isinstance(record.data, self.LOUD) for record in message.records)

    def rings(self) -> bool:
        """Whether anything has come since this was last asked."""
        new, self._new = self._new, False
        return new


class Model:
    """Everything that the screens draw from."""

    def __init__(self, name: str, clock: Callable[[], float] = time.time) -> None:
        self.name = name
        self.clock = clock
        self.state = RunState()
        self.version = 0
        self.connected = False
        self.lost_reason = ""
        self.lost_at = clock()
        self.ever_connected = False
        self.load: protocol.LiveLoad | None = None
        self.facts = Facts()
        self.replay: Replay | None = None
        self.curves: dict[str, Curve] = {}
        self.doing: dict[str, protocol.LiveStep] = {}
        self.texts = Streams()
        self.loads: deque[LoadPoint] = deque(maxlen=LOADS)
        self.happenings: deque[Happening] = deque(maxlen=TICKER)
        self.terminal = ""
        self.alarms = Alarms()
        self._arrivals: deque[tuple[float, int]] = deque()

    @property
    def known(self) -> bool:
        """A state has arrived."""
        return self.state.seq > 0

    @property
    def now(self) -> float:
        """The time that ages are counted to: it stands still while the line is down."""
        return self.clock() if self.connected or not self.known else max(self.lost_at, self.state.time)

    @property
    def commands(self) -> bool:
        """There is an engine to order something from."""
        return self.connected and self.replay is None

    @property
    def over(self) -> bool:
        """No engine is expected to answer any more."""
        return self.facts.latched == "killed" or self.state.phase in ("stopped", "finished", "killed")

    @property
    def deadman_left(self) -> float | None:
        """Seconds until the run is stopped for want of a person; None where it will not be, or nobody knows."""
        return self.load.deadman_left if self.load is not None and self.connected else None

    def see(self, facts: Facts) -> None:
        """Take what this terminal has seen for itself."""
        if facts != self.facts:
            self.facts = facts
            self.version += 1

    def take(self, message: Any) -> None:
        """Take one message from the connection."""
        self.version += 1
        self.alarms.take(message)
        if isinstance(message, Connected):
            self.connected = self.ever_connected = True
        elif isinstance(message, Lost):
            if self.connected:
                self.lost_at = self.clock()
            self.connected, self.lost_reason = False, message.reason
        elif isinstance(message, protocol.Snapshot):
            self.state = message.state
            self._remember_state()
        elif isinstance(message, protocol.Records):
            self._arrivals.append((self.clock(), len(message.records)))
            for record in message.records:
                fold(self.state, record)
                self._remember(record)
        else:
            self._take_live(message)

    def _take_live(self, message: Any) -> None:
        if isinstance(message, protocol.LiveCurve):
            curve = self.curve(message.trial)
            curve.add(message.losses, message.scores)
            curve.latest = message
        elif isinstance(message, protocol.LiveStep):
            self.doing[message.experiment] = message
        elif isinstance(message, protocol.LiveLoad):
            self.load = message
            self.loads.append(_load_point(message))
        elif isinstance(message, protocol.LiveText):
            self.texts.take(message, self.clock())

    def curve(self, trial: str) -> Curve:
        """The curve of a trial; the oldest ones are forgotten."""
        if trial not in self.curves:
            while len(self.curves) >= CURVES:
                del self.curves[next(iter(self.curves))]
            self.curves[trial] = Curve()
        return self.curves[trial]

    # --- the log ---------------------------------------------------------------------------------------------------

    def _remember_state(self) -> None:
        """Rebuild the log from a snapshot: notes and what experiments have become."""
        state = self.state
        found = []
        if state.armed is not None:
            text, style = _TELLERS[ev.RunArmed](state.armed)
            found.append(Happening(state.engine_started, "", text, style))
        found += [Happening(note.time, "", note.text, _LEVEL_STYLES.get(note.level, "")) for note in state.notes]
        for experiment in state.experiments.values():
            if experiment.scored is not None:
                found.append(Happening(experiment.changed, experiment.id, _scored_text(experiment.scored)))
            elif experiment.outcome:
                found.append(Happening(experiment.changed, experiment.id, _closed_text(experiment), "dim"))
        self.happenings.clear()
        self.happenings.extend(sorted(found)[-TICKER:])
        self.texts.fill(self.happenings)

    def _remember(self, record: ev.Record) -> None:
        experiment = getattr(record.data, "experiment", "")
        tell = _TELLERS.get(type(record.data))
        if tell is not None:
            text, style = tell(record.data)
            self.happenings.append(Happening(record.time, experiment, text, style))
            self.texts.say(record.time, experiment, text, style)
        if isinstance(record.data, ev.ExperimentClosed):
            self.doing.pop(experiment, None)
        self.texts.tell(record)

    # --- who and how much ------------------------------------------------------------------------------------------

    def supervisors(self) -> list[protocol.Supervisor]:
        """Everybody who is attached."""
        return self.load.supervisors if self.load is not None and self.connected else []

    def looked_at(self, request: str) -> list[str]:
        """Who else looks at a request: other terminals, also one's own."""
        return [one.who for one in self.supervisors() if one.looking == request and one.terminal != self.terminal]

    def events_per_minute(self) -> float:
        """Records of the last minute; since this terminal came, where that is shorter."""
        now = self.clock()
        while self._arrivals and self._arrivals[0][0] < now - 60:
            self._arrivals.popleft()
        return float(sum(count for _, count in self._arrivals))

    # --- what screens ask ------------------------------------------------------------------------------------------

    def pending(self) -> list[Request]:
        """What waits for a person, by the cost of waiting: what expires first, before that what blocks most work."""
        return sorted(self.state.pending, key=lambda one: (one.expires, one.asked))

    def best_scores(self) -> list[float]:
        """The best score among proposals after each result, oldest first."""
        scored = sorted((one.changed, one.scored.score) for one in self.results() if one.scored is not None)
        out: list[float] = []
        for _, score in scored:
            out.append(max(score, out[-1]) if out else score)
        return out

    def in_flight(self) -> list[Experiment]:
        """Open experiments: proposals before baselines, those at work before those that wait, then by age."""
        found = [experiment for experiment in self.state.experiments.values() if experiment.open]
        busy = {trial.experiment for trial in self.state.running_trials}
        return sorted(found, key=lambda e: (e.origin == "baseline", e.id not in busy and e.step == "train", e.opened))

    def results(self) -> list[Experiment]:
        """Scored proposals, the newest first."""
        scored = [experiment for experiment in self.state.proposals if experiment.scored is not None]
        return sorted(scored, key=lambda e: -e.changed)

    def best(self) -> Experiment | None:
        """The best ranked proposal so far."""
        return next((found for found in self.state.ranking() if found.origin != "baseline"), None)

    def noise_seeds(self) -> int:
        """Seeds of the reference baseline that have a score."""
        told = (found.scored.noise_seeds for found in self.state.experiments.values() if found.scored)
        counted = (
            len({trial.seed for trial in self.state.finished_trials(found.id)}) for found in self.state.baselines
        )
        return max([*told, *counted], default=0)

    def reference(self) -> Experiment | None:
        """The baseline that has been trained most often: the one that everything is compared with."""
        return max(self.state.baselines, key=lambda e: (len(self.state.finished_trials(e.id)), -e.opened), default=None)

    def trial_for(self, experiment: str, like: Trial) -> Trial | None:
        """A finished trial of another experiment to compare with: the same seed where there is one."""
        if experiment not in self.state.experiments:
            return None
        trials = [trial for trial in self.state.finished_trials(experiment) if trial.tier == like.tier]
        return max(trials, key=lambda trial: (trial.seed == like.seed, trial.ended), default=None)


def _scored_text(event: ev.ExperimentScored) -> str:
    from asi_tui.words import plural, scored

    return f"scored {scored(event)} on {plural(event.seeds, 'seed')}"


def _closed_text(found: Experiment) -> str:
    return f"{found.outcome}: {found.reason or found.failure}".rstrip(": ")


_LEVEL_STYLES = {"warning": "warn", "error": "bad"}

_TELLERS: dict[type, Callable[[Any], tuple[str, str]]] = {
    ev.EngineStarted: lambda e: (f"engine started, pid {e.pid}", "dim"),
    ev.EngineStopped: lambda e: (f"engine stopped: {e.reason}", "dim"),
    ev.RunArmed: lambda e: (
        f"armed: {e.processes} processes killed in {e.killed_ms:.0f} ms, "
        f"{e.attacks_stopped}/{e.attacks_tried} attacks stopped",
        "good",
    ),
    ev.ArmingFailed: lambda e: (f"arming failed: {e.reason}", "bad"),
    ev.RunPaused: lambda e: (f"paused: {e.reason}".rstrip(": "), "warn"),
    ev.RunFrozen: lambda e: (
        f"frozen: {e.processes} processes in {e.milliseconds:.0f} ms, {e.reason}".rstrip(", "),
        "warn",
    ),
    ev.RunParked: lambda e: (f"parked: {e.reason}".rstrip(": "), "warn"),
    ev.RunResumed: lambda e: ("running", ""),
    ev.RunStopped: lambda e: (f"stopped: {e.reason}", "warn"),
    ev.RunKilled: lambda e: (f"killed by {e.who}", "bad"),
    ev.RunRearmed: lambda e: (f"re-armed: {e.reason}", "warn"),
    ev.BudgetExceeded: lambda e: (f"budget: {e.currency} {e.used:g} of {e.cap:g}", "warn"),
    ev.LeaseLost: lambda e: (
        f"no heartbeat of the engine for {e.seconds:.0f} s: {e.sandboxes} sandboxes killed by the guard, "
        f"{'proved' if e.proved else 'NOT proved'}",
        "bad",
    ),
    ev.NoteAdded: lambda e: (e.text, _LEVEL_STYLES.get(e.level, "")),
    ev.JournalRepaired: lambda e: (f"journal repaired: {e.bytes_cut} bytes cut", "warn"),
    ev.ProposalDrafted: lambda e: (f"proposed: {e.title}", ""),
    ev.ProposalDuplicate: lambda e: (f"repeats {e.of}", "dim"),
    ev.ProgramVetted: lambda e: (
        ("passed all gates", "dim")
        if e.passed
        else ("failed " + ", ".join(gate.gate for gate in e.gates if not gate.passed), "warn")
    ),
    ev.ProgramRepaired: lambda e: (f"repaired: {e.diagnosis}", ""),
    ev.ApprovalRequested: lambda e: (f"asks for approval at {e.tier}: {e.rule}", "warn"),
    ev.ApprovalDecided: lambda e: (f"{e.decision} by {e.who}", "dim"),
    ev.TrialStarted: lambda e: (f"trains seed {e.seed} at {e.tier}", "dim"),
    ev.TrialAnomaly: lambda e: (f"{e.what}: {e.evidence}", "bad"),
    ev.TrialFailed: lambda e: (f"{'CHEAT' if e.cheat else 'failed'}: {e.reason}", "bad" if e.cheat else "warn"),
    ev.TrialParked: lambda e: (f"trial parked by {e.who}", "warn"),
    ev.TrialKilled: lambda e: (f"trial ended by {e.who}", "warn"),
    ev.ExperimentScored: lambda e: (_scored_text(e), "strong"),
    ev.ExperimentClosed: lambda e: (f"{e.outcome}: {e.reason}".rstrip(": "), "dim"),
}
