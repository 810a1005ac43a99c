"""What the terminal knows: the run's state, the live things beside it, and the line to the engine.

Messages are taken as they come and only change data; `version` counts the changes, and the screen is drawn from here
at its own pace. No widget in this file.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

from asi_tui.alerts import Alerts
from asi_tui.facts import Facts
from asi_tui.forecast import Forecast, forecasts
from asi_tui.lines import Row
from asi_tui.streams import Streams
from asi_tui.telling import LEVEL_STYLES, TELLERS, closed_text, scored_text
from asi_tui.words import UNKNOWN_BOUND
from engine.client import protocol
from engine.client.connection import Connected, Lost
from store import events as ev
from store.config import RunConfig
from store.folding import fold
from store.state import Experiment, Request, RunState


class Replay(Protocol):
    """What plays a finished run in place of an engine; screens show its bar and offer its keys."""

    def bar(self, width: int) -> Row:
        """The line that nobody can mistake for a live run's."""
        ...

    def keys(self) -> list[Any]:
        """Play, pause, faster, slower, jump."""
        ...


T = TypeVar("T")

FORECAST_SECONDS = 5.0

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
        self.alerts = Alerts()
        self._computed_for: tuple[int, int] = (0, -1)
        self._computed: dict[str, Any] = {}
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
            self.alerts.take(message, self.state)
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
            text, style = TELLERS[ev.RunArmed](state.armed)
            found.append(Happening(state.engine_started, "", text, style))
        found += [Happening(note.time, "", note.text, LEVEL_STYLES.get(note.level, "")) for note in state.notes]
        for experiment in state.experiments.values():
            if experiment.scored is not None:
                found.append(Happening(experiment.changed, experiment.id, scored_text(experiment.scored)))
            elif experiment.outcome:
                found.append(Happening(experiment.changed, experiment.id, closed_text(experiment), "dim"))
        self.happenings.clear()
        self.happenings.extend(sorted(found)[-TICKER:])
        self.texts.fill(self.happenings)

    def _remember(self, record: ev.Record) -> None:
        experiment = getattr(record.data, "experiment", "")
        if isinstance(record.data, ev.ApprovalVoted | ev.ApprovalWithdrawn) and self._secret(record.data.request):
            return
        tell = TELLERS.get(type(record.data))
        if tell is not None:
            text, style = tell(record.data)
            self.happenings.append(Happening(record.time, experiment, text, style))
            self.texts.say(record.time, experiment, text, style)
        if isinstance(record.data, ev.ExperimentClosed):
            self.doing.pop(experiment, None)
        self.texts.tell(record)

    def _secret(self, request: str) -> bool:
        """Whether answers to a request are not told: of two people each decides without knowing of the other."""
        found = self.state.requests.get(request)
        return found is not None and found.people > 1 and found.subject == "program"

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

    def _once(self, name: str, compute: Callable[[], T]) -> T:
        """What was computed from this very state before, else computed now."""
        stamp = (id(self.state), self.state.seq)
        if self._computed_for != stamp:
            self._computed_for, self._computed = stamp, {}
        if name not in self._computed:
            self._computed[name] = compute()
        found: T = self._computed[name]
        return found

    def pending(self) -> list[Request]:
        """What waits for a person, by the cost of waiting: what expires first, before that what blocks most work."""
        return self._once("pending", lambda: sorted(self.state.pending, key=lambda one: (one.expires, one.asked)))

    def ranking(self) -> list[Experiment]:
        """Scored experiments, best first."""
        return self._once("ranking", self.state.ranking)

    def results(self) -> list[Experiment]:
        """Scored proposals, the newest first."""
        return self._once("results", self._results)

    def _results(self) -> list[Experiment]:
        scored = [experiment for experiment in self.state.proposals if experiment.scored is not None]
        return sorted(scored, key=lambda e: -e.changed)

    def best_scores(self) -> list[float]:
        """The best score among proposals after each result, oldest first."""
        return self._once("best scores", self._best_scores)

    def _best_scores(self) -> list[float]:
        out: list[float] = []
        for one in reversed(self.results()):
            if one.scored is not None:
                out.append(max(one.scored.score, out[-1]) if out else one.scored.score)
        return out

    def best(self) -> Experiment | None:
        """The best proposal so far; one seed is luck, so it takes two and an interval."""
        return self._once("best", lambda: next(filter(_may_lead, self.ranking()), None))

    def in_flight(self) -> list[Experiment]:
        """Open experiments: proposals before baselines, those at work before those that wait, then by age."""
        return self._once("in flight", self._in_flight)

    def _in_flight(self) -> list[Experiment]:
        found = [experiment for experiment in self.state.experiments.values() if experiment.open]
        busy = {trial.experiment for trial in self.state.running_trials}
        return sorted(found, key=lambda e: (e.origin == "baseline", e.id not in busy and e.step == "train", e.opened))

    def forecasts(self, config: RunConfig) -> list[Forecast]:
        """What is used of each budget and when its cap is reached, looked at every few seconds."""
        now = self.now
        return self._once(f"forecasts {now // FORECAST_SECONDS}", lambda: forecasts(self.state, config, now))

    def noise_seeds(self) -> int:
        """Seeds of the reference baseline that have a score."""
        return self._once("noise seeds", self._noise_seeds)

    def _noise_seeds(self) -> int:
        told = (found.scored.noise_seeds for found in self.state.experiments.values() if found.scored)
        counted = (
            len({trial.seed for trial in self.state.finished_trials(found.id)}) for found in self.state.baselines
        )
        return max([*told, *counted], default=0)

    def reference(self) -> Experiment | None:
        """The baseline that has been trained most often: the one that everything is compared with."""
        return self._once("reference", self._reference)

    def _reference(self) -> Experiment | None:
        return max(self.state.baselines, key=lambda e: (len(self.state.finished_trials(e.id)), -e.opened), default=None)


def _may_lead(found: Experiment) -> bool:
    """Whether an experiment can be called the best: a proposal with an interval over two seeds or more."""
    event = found.scored
    return found.origin != "baseline" and event is not None and event.seeds >= 2 and abs(event.low) < UNKNOWN_BOUND
