"""The gates in the order in which they run, and how one is judged."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from engine.domain import GateResult
from engine.linear_attention.vetting import causality, cost, form, identity, isolation, learning
from engine.linear_attention.vetting.subject import GateFailure, Outcome, Subject

GATES: dict[str, Callable[[Subject], Outcome]] = {
    "load": form.load,
    "shapes": form.shapes,
    "causal": causality.causal,
    "batch": isolation.batch,
    "stateless": isolation.stateless,
    "prefix": causality.prefix,
    "decode": form.decode,
    "gradient": learning.gradient,
    "complexity": cost.complexity,
    "budget": cost.budget,
    "stability": learning.stability,
    "identity": identity.identity,
}
# A program that fails one of these would fail all later ones with the same words.
ESSENTIAL = frozenset({"load", "shapes"})
MAX_EVIDENCE = 1000


def judge(name: str, run: Callable[[], Outcome]) -> tuple[GateResult, dict[str, Any]]:
    """Run one gate; whatever the program raises becomes a failed gate with the error as evidence.

    Returns the verdict and the report's fields that the gate measured on the way.
    """
    started = time.process_time()
    try:
        outcome = run()
    except GateFailure as failure:
        outcome = Outcome(False, f"{name}: {failure}")
    except BaseException as error:  # a program may raise SystemExit or KeyboardInterrupt as well as any other
        outcome = Outcome(False, f"{name}: the program raised {form.sentence(error)}{_where(error)}")
    seconds = time.process_time() - started
    measured = {key: float(value) for key, value in outcome.measured.items() if math.isfinite(value)}
    return GateResult(name, outcome.passed, outcome.evidence[:MAX_EVIDENCE], seconds, measured), outcome.facts


def _where(error: BaseException) -> str:
    """The innermost line of the program itself in a traceback, for the repair."""
    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith("<mixer_"):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f" (line {line} of the program)" if line is not None else ""
