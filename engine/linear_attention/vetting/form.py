"""Gates on the form of a program: its source, the shapes it accepts, and the decoding it offers."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.linear_attention.static import check_source, errors
from engine.linear_attention.vetting.subject import (
    CONDITIONS,
    GateFailure,
    Outcome,
    Subject,
    checked,
    difference,
    forward,
    largest,
)

BATCHES = (1, 2, 7)
DECODE_LENGTH = 40
DECODE_TOLERANCE = 2e-3


def static(source: str) -> Outcome:
    """The source parses, imports only what a mixer may, does nothing dynamic and is of a bounded size."""
    findings = check_source(source)
    failing = errors(findings)
    shown = [f"line {finding.line}: {finding.message}" for finding in failing or findings][:5]
    more = len(failing) - len(shown)
    evidence = "static: " + ("; ".join(shown) or "nothing found") + (f"; and {more} more" if more > 0 else "")
    return Outcome(not failing, evidence, {"errors": len(failing), "warnings": len(findings) - len(failing)})


def load(subject: Subject) -> Outcome:
    """A mixer can be constructed at the tier's sizes, for more than one layer."""
    for layer in (0, 1):
        subject.build(layer)
    return Outcome(True, "load: Mixer was constructed for layers 0 and 1", facts={"offers_step": subject.offers_step})


def shapes(subject: Subject) -> Outcome:
    """Every batch size and length comes back in its own shape, and late positions still answer to the input."""
    module = subject.module(CONDITIONS[1])
    times = sorted({1, 17, 64, 100, 128, subject.spec.train_length})
    cases = [(batch, 17) for batch in BATCHES] + [(2, time) for time in times if time != 17]
    for batch, time in cases:
        try:
            forward(module, subject.probe(batch, time))
        except GateFailure as failure:
            return Outcome(False, f"shapes: {failure} (batch {batch}, T={time})")
        except Exception as error:
            return Outcome(False, f"shapes: batch {batch}, T={time}: {sentence(error)}")
    for time in (*times, 2 * subject.spec.train_length):
        if time > 1 and (deaf := _first_deaf_position(subject, time)) is not None:
            return Outcome(
                False,
                f"shapes: with T={time} the output from t={deaf} on does not depend on the input at all",
                {"time": time, "position": deaf},
            )
    return Outcome(True, f"shapes: batch {BATCHES} and T={times} keep their shape", {"cases": len(cases)})


def sentence(error: BaseException) -> str:
    """An error in one bounded line. torch may lose the words of an allocation failure for want of memory: said here."""
    words = " ".join(str(error).split())[:400]
    if "alloc" in words and "allocate" not in words:
        words += " it could not allocate the memory that it asked for"
    return f"{type(error).__name__}: {words}"


def _first_deaf_position(subject: Subject, time: int) -> int | None:
    """Where a tail begins, in the second half of the sequence, that ignores the input altogether; None if nowhere."""
    module = subject.module(CONDITIONS[1])
    a, b = (forward(module, subject.probe(2, time, seed=seed)) for seed in (1, 2))
    deaf = ((a == b) | (a.isnan() & b.isnan())).all(dim=-1).all(dim=0)
    if a.isnan().any() or not bool(deaf[-1]):
        return None
    heard = (~deaf).nonzero()
    start = int(heard[-1]) + 1 if len(heard) else 0
    return start


def decode(subject: Subject) -> Outcome:
    """Token by token, `step` gives what `forward` gives, and its state stops growing."""
    if not subject.offers_step:
        return Outcome(True, "decode: the mixer offers no step")
    worst = 0.0
    for condition in CONDITIONS:
        module = subject.module(condition).eval()
        x = subject.probe(2, DECODE_LENGTH)
        whole = forward(module, x)
        with torch.no_grad():
            tokens = decode_tokens(module, x)
        error = difference(whole, tokens)
        scale = max(1.0, float(whole.nan_to_num().abs().max()))
        worst = max(worst, largest(error) / scale)
        if worst > DECODE_TOLERANCE:
            first = int((error.amax(dim=(0, 2)) > DECODE_TOLERANCE * scale).nonzero()[0])
            return Outcome(
                False,
                f"decode: step differs from forward by {largest(error):.3g}, first at t={first} "
                f"(T={DECODE_LENGTH}, {condition}, outputs up to {scale:.3g})",
                {"error": worst, "position": first},
            )
    return Outcome(
        True, f"decode: step reproduces forward within {worst:.1e} of {DECODE_TOLERANCE:.1e} allowed", {"error": worst}
    )


def decode_tokens(module: torch.nn.Module, x: Tensor) -> Tensor:
    """Run `step` over x `[batch, time, d_model]` and stack its outputs. Raises GateFailure on a wrong shape."""
    outputs, state = [], None
    for t in range(x.shape[1]):
        result = module.step(x[:, t], state)  # type: ignore[operator]
        if not (isinstance(result, tuple) and len(result) == 2):
            raise GateFailure("step must return a pair (y_t, state)")
        outputs.append(checked(result[0], x[:, t]))
        state = result[1]
    return torch.stack(outputs, dim=1)
