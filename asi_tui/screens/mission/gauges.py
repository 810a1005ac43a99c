"""Mission control's figures: the machine, budgets, who watches, what leaks, the last drill, the trend, a live curve."""

from __future__ import annotations

from typing import NamedTuple

from asi_tui import words
from asi_tui.forecast import Forecast
from asi_tui.lines import Row, Span, bar, clip, paragraph, row, rule
from asi_tui.model import Model
from asi_tui.plot import Series, plot
from asi_tui.presence import WARNING_SECONDS
from asi_tui.screens.parts import device_row
from store.config import RunConfig

SPARKS = "▁▂▃▄▅▆▇█"

ADVICE_WIDTH = 60
"""From this width on there is room for what would raise the sandbox's level."""


CAPPED = {"wall hours": "time", "cpu hours": "cpu", "disk GB": "disk"}
"""Short names of what has a cap, where they differ."""


class Figures(NamedTuple):
    """What the gauges need beside the model."""

    config: RunConfig
    witness: str
    who: str


def sparkline(values: list[float], width: int) -> str:
    """The values as bars from their least to their largest; more than `width` of them are thinned out evenly."""
    shown = values if len(values) <= width else [values[(i + 1) * len(values) // width - 1] for i in range(width)]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    spread = (high - low) or 1.0
    return "".join(SPARKS[round((value - low) / spread * (len(SPARKS) - 1))] for value in shown)


def machine(model: Model, figures: Figures, width: int) -> list[Row]:
    """Load, budgets, supervisors, leaks, drill: a line or two each."""
    seeds, wanted = model.noise_seeds(), figures.config.trials.noise_seeds
    noise = f"noise floor known, {seeds} seeds" if seeds >= wanted else f"noise floor {seeds} of {wanted} seeds"
    live = [] if model.replay is not None else _load(model, width)
    watch = [] if model.replay is not None else _watch(model, figures, width)
    rows = [*live, *_budget(model, figures, width), *watch, *_safety(model, width)]
    return [rule("machine", width, noise), *rows]


def _load(model: Model, width: int) -> list[Row]:
    load = model.load
    if load is None:
        return [row((" no load figures yet", "dim"))]
    line = row((" cpu ", "dim"), (bar(load.cpu, 8), "accent"), f" {load.cpu:4.0%}", ("  memory ", "dim"),
               f"{load.memory_used / 2**30:.1f} of {words.size(load.memory_total)}",
               ("  disk ", "dim"), f"{words.size(load.disk_free)} free",
               ("  trials ", "dim"), f"{load.trials} of {load.slots}")  # fmt: skip
    return [clip(line, width), *(device_row(device, width) for device in load.devices)]


def _budget(model: Model, figures: Figures, width: int) -> list[Row]:
    """What was spent, and for each cap when it will be reached."""
    state = model.state
    worked = state.working_seconds + (max(0.0, model.now - state.working_since) if state.working_since else 0.0)
    parts: list[Span] = [(" worked ", "dim"), (words.age(worked), ""), ("   cpu spent ", "dim"),
                         (words.age(state.cpu_seconds), "")]  # fmt: skip
    if state.tokens_used or state.money:
        parts += [("   tokens ", "dim"), (words.count(state.tokens_used), "")]
        parts += [("   money ", "dim"), (f"{state.money:.2f} USD", "")] if state.money else []
    scores = model.best_scores()
    if len(scores) > 1:
        parts += [("   best ", "dim"), (sparkline(scores, max(6, min(24, width // 8))), "accent")]
    rows = [clip(tuple(parts), width)]
    capped = sorted(model.forecasts(figures.config), key=lambda one: -one.share)
    for one in [one for one in capped if one.cap][:2]:
        rows.append(clip(row((" cap ", "dim"), *_forecast(one)), width))
    return rows


def _forecast(one: Forecast) -> list[Span]:
    tone = "bad" if one.share >= 1 else "warn" if one.share >= 0.8 else ""
    spent = f"{CAPPED.get(one.currency, one.currency)} {one.spent}  "
    return [(bar(one.share, 8), tone or "accent"), (f" {one.share:4.0%} ", tone), (spent, ""), (one.text, "dim")]


def _watch(model: Model, figures: Figures, width: int) -> list[Row]:
    """Who is here, how much happens, what leaks."""
    parts: list[Span] = [(" events ", "dim"), (f"{model.events_per_minute():.0f}/min", "")]
    load = model.load
    others = [one for one in model.supervisors() if one.who != figures.who]
    here = ", ".join(dict.fromkeys(one.who for one in others))
    parts += [("   here ", "dim"), (f"you and {here}" if others else "only you", "")]
    if load is not None and load.strays is not None:
        if load.strays:
            found = ", ".join(f"{one.pid} {one.command}" for one in load.strays[:2])
            parts += [("   LEAK ", "bad"), (f"{words.plural(len(load.strays), 'stray process')}: {found}", "bad")]
        else:
            parts += [("   leaks ", "dim"), ("none", "good")]
    parts += [("   witness ", "dim"), (figures.witness, "")]
    return [clip(row(*parts), width)]


def _safety(model: Model, width: int) -> list[Row]:
    """The last drill, what attacked the sandbox in vain, and the dead-man's switch."""
    armed, left = model.state.armed, model.deadman_left
    parts: list[Span] = []
    if left is not None:
        tone = "warn" if left <= WARNING_SECONDS else ""
        text = f"{words.age(left)} left, any key renews" if left else "no person has acted: any key renews"
        parts += [(" dead-man ", "dim"), (text, tone), ("  ", "")]
    if armed is not None:
        parts += [(" last ", "dim"), (words.drill(armed), "good"), (f", sandbox {armed.level}", "")]
        tone = "good" if armed.attacks_stopped == armed.attacks_tried else "warn"
        parts += [("   attacks stopped ", "dim"), (f"{armed.attacks_stopped} of {armed.attacks_tried}", tone)]
    rows = [clip(tuple(parts), width)] if parts else []
    if armed is not None and armed.advice and ADVICE_WIDTH <= width != 80:
        rows += paragraph(f"{armed.level} could be better: {armed.advice}", width, "dim")[:2]
    return rows


def curve(model: Model, width: int, height: int) -> list[Row]:
    """The loss of the running trial that is furthest, as it comes; nothing where none runs."""
    running = [model.curves[trial.id] for trial in model.state.running_trials if trial.id in model.curves]
    live = [one for one in running if one.latest is not None]
    if not live or height < 6:
        return []
    shown = max(live, key=lambda one: one.latest.done if one.latest else 0.0)
    assert shown.latest is not None
    task = shown.latest.task
    points = sorted((float(step), value) for step, value in shown.losses.get(task, {}).items())
    name = words.name_of(model.state, shown.latest.experiment)
    rows = [rule(f"{shown.latest.experiment} {name}", width, f"{task}, training loss in nats")]
    return [*rows, *plot([Series(task, points, 0)], width - 1, height - 1, "steps", float(shown.latest.steps))]
