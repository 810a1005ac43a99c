"""Gates on cost: it grows linearly with the length, and parameters and state stay within the tier's limits."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from engine.linear_attention.vetting.counting import METRICS, CostCounter, count, culprit, exponent
from engine.linear_attention.vetting.subject import CONDITIONS, Outcome, Subject, random_weighting

SURELY_QUADRATIC = 1.7
TRAINING_BATCH = 16
TIMED_STEPS = 4


def complexity(subject: Subject) -> Outcome:
    """Count the cost at T, 2T and 4T. Quadratic programs and Fourier mixers fail, whatever the clock says.

    The growth over the last doubling decides, because what grows fastest shows there best. CPU time is measured and
    reported only: on a shared machine it separates nothing.
    """
    base = 2 * subject.spec.train_length
    counters: list[CostCounter] = []
    seconds = 0.0
    for length in (base, 2 * base, 4 * base):
        module = subject.module(CONDITIONS[1])
        started = time.process_time()
        counters.append(count(module, subject.probe(1, length).requires_grad_()))
        seconds = time.process_time() - started
        if len(counters) == 2 and max(_exponents(counters).values()) > SURELY_QUADRATIC:
            break
    exponents = _exponents(counters)
    steepest = max(exponents.values())
    longest = base * 2 ** (len(counters) - 1)
    verdict = _name(counters, longest, subject.spec.max_cost_exponent)
    measured = {
        **exponents,
        "cpu_seconds": seconds,
        "time": longest,
        **{f"{name}_{base * 2**i}": c.totals()[name] for i, c in enumerate(counters) for name in METRICS},
    }
    evidence = (
        f"complexity: {verdict}; from T={longest // 2} to T={longest} matrix work grows with exponent "
        f"{exponents['flops']:.2f}, elements touched {exponents['elements']:.2f}, largest tensor "
        f"{exponents['largest']:.2f} (limit {subject.spec.max_cost_exponent:g}); "
        f"{seconds:.2f} CPU s forward and backward at T={longest}"
    )
    passed = verdict == "linear" or subject.spec.allow_quadratic
    return Outcome(passed, evidence, measured, {"cost_exponent": round(steepest, 3)})


def _exponents(counters: list[CostCounter]) -> dict[str, float]:
    small, large = counters[-2].totals(), counters[-1].totals()
    return {name: exponent(small[name], large[name]) for name in METRICS}


def _name(counters: list[CostCounter], longest: int, limit: float) -> str:
    """What kind of mixer the counts show: the word that a repair or a reviewer starts from."""
    small, large = counters[-2], counters[-1]
    grown = {n for n in large.transformed if n >= longest // 4} - small.transformed
    if grown:
        return f"a Fourier transform over time (length {max(grown)}), which costs T log T and keeps no constant state"
    exponents = _exponents(counters)
    metric = next((name for name in METRICS if exponents[name] > limit), None)
    if metric is None:
        return "linear"
    cause = culprit(small, large, metric)
    kind = "quadratic" if max(exponents.values()) > SURELY_QUADRATIC else "superlinear"
    fused = [name for name in large.flops if "attention" in name]
    square = any(len(shape) >= 2 and min(shape[-2:]) >= longest // 4 for shape in large.softmax_shapes)
    if fused:
        return f"{kind}: fused softmax attention ({fused[0]})"
    if square:
        return f"{kind}: softmax attention over all pairs of positions ({cause})"
    if metric == "flops":
        return f"{kind} matrix work ({cause})"
    return f"{kind} elementwise work over pairs of positions ({cause})"


def budget(subject: Subject) -> Outcome:
    """Parameters and recurrent state against the tier's limits; FLOPs per token are reported."""
    spec = subject.spec
    module = subject.module(CONDITIONS[0])
    parameters = sum(p.numel() for p in module.parameters())
    flops = count(module, subject.probe(1, spec.train_length), backward=False).totals()["flops"] / spec.train_length
    state, later = _state_sizes(subject) if subject.offers_step else (0, 0)
    facts = {"parameters": parameters, "flops_per_token": flops, "state_floats": state}
    measured = {"parameters": parameters, "flops_per_token": flops, "state_floats": state, "state_floats_2T": later}
    failures = []
    if parameters > spec.max_parameters:
        failures.append(f"{parameters} parameters, the limit is {spec.max_parameters}")
    if later > spec.max_state_floats and not spec.allow_quadratic:
        failures.append(f"a state of {later} floats, the limit is {spec.max_state_floats}")
    if later > state and not spec.allow_quadratic:
        failures.append(
            f"the state grows: {state} floats after {spec.train_length} tokens, {later} after twice as many"
        )
    described = f"{parameters} parameters, {flops:.0f} FLOPs per token, " + (
        f"{state} floats of state" if subject.offers_step else "state unknown without step"
    )
    return Outcome(not failures, "budget: " + ("; ".join(failures) or described), measured, facts)


def _state_sizes(subject: Subject) -> tuple[int, int]:
    """Floats in the decoding state after train_length tokens and after twice as many, for one sequence."""
    module = subject.module(CONDITIONS[0]).eval()
    x = subject.probe(1, 2 * subject.spec.train_length)
    state, sizes = None, []
    with torch.no_grad():
        for t in range(x.shape[1]):
            _, state = module.step(x[:, t], state)  # type: ignore[operator]
            if t + 1 in (subject.spec.train_length, x.shape[1]):
                sizes.append(sum(tensor.numel() for tensor in _state_tensors(state)))
    return sizes[0], sizes[1]


def _state_tensors(state: object) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, list | tuple):
        for item in state:
            yield from _state_tensors(item)
    elif isinstance(state, dict):
        for item in state.values():
            yield from _state_tensors(item)
    elif state is not None and hasattr(state, "__dict__"):
        yield from _state_tensors(vars(state))


def step_seconds(module: nn.Module, x: Tensor) -> float:
    """CPU seconds of one forward and backward pass of the mixer on x, the mean of a few after a first one."""
    module.train()
    started = 0.0
    for repetition in range(TIMED_STEPS + 1):
        if repetition == 1:
            started = time.process_time()
        loss = random_weighting(module(x))
        if loss.requires_grad:
            loss.backward()
    return (time.process_time() - started) / TIMED_STEPS
