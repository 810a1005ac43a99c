"""Runs the battery in forked children, so that a crash, a hang or an exit of the program is one more failed gate.

The parent imports torch once and never executes a line of the program. A child runs the gates in order and reports
each over a pipe as soon as it is decided; when the child dies, the gate it was in has failed, and a fresh child goes on
with the rest.
"""

from __future__ import annotations

import math
import os
import resource
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import torch

from engine.domain import GateResult, VetReport, VetSpec
from engine.linear_attention.vetting import form
from engine.linear_attention.vetting.battery import ESSENTIAL, GATES, judge
from engine.linear_attention.vetting.subject import Outcome, Subject

CPU_SECONDS_PER_GATE = 15
WALL_SECONDS_PER_GATE = 150
MEMORY_BYTES = 4 * 1024**3
MAX_LINE_BYTES = 64 * 1024
MAX_DEATHS = 2


class Facts(msgspec.Struct, omit_defaults=True):
    """The report's fields that gates measure; None where no gate has."""

    parameters: int | None = None
    flops_per_token: float | None = None
    state_floats: int | None = None
    cost_exponent: float | None = None
    dead_parameters: list[str] | None = None
    functional_hash: str | None = None
    offers_step: bool | None = None
    step_seconds: float | None = None


class Line(msgspec.Struct):
    """What a child reports about one gate."""

    gate: GateResult
    facts: Facts


def vet(source: str, spec: VetSpec, private_fds: tuple[int, ...] = ()) -> VetReport:
    """Run the whole battery on one program.

    private_fds: descriptors that the program must not inherit. A program that fails the static gate is not executed,
    and one that fails an essential gate meets no further one.
    """
    started = _cpu_seconds()
    verdict, _ = judge("static", lambda: form.static(source))
    gates = [verdict]
    known: dict[str, object] = {}
    pending = list(GATES) if verdict.passed else []
    deaths = 0
    while pending:
        for line in _child_lines(source, spec, pending, private_fds):
            if isinstance(line, GateResult):
                gates.append(line)
                deaths += 1
            else:
                gates.append(line.gate)
                known.update(msgspec.to_builtins(line.facts))
            pending = pending[1:]
        if deaths >= MAX_DEATHS or any(gate.gate in ESSENTIAL and not gate.passed for gate in gates):
            break
    fields = {
        "passed": not pending and all(gate.passed for gate in gates),
        "gates": gates,
        "seconds": _cpu_seconds() - started,
        **known,
    }
    return VetReport(**fields)  # type: ignore[arg-type]


def warm_up() -> None:
    """Run a little of everything once, so that children need not repeat torch's lazy first steps."""
    torch.set_num_threads(1)
    layer = torch.nn.Linear(4, 4)
    layer(torch.randn(2, 4)).square().mean().backward()


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _child_lines(
    source: str, spec: VetSpec, names: list[str], private_fds: tuple[int, ...]
) -> Iterator[Line | GateResult]:
    """Fork a child for these gates and yield what it reports; a bare GateResult ends the sequence when it died."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for descriptor in (reader, *private_fds):
                os.close(descriptor)
            _run_child(source, spec, names, writer)
        finally:
            os._exit(0)
    os.close(writer)
    buffered = b""
    done = 0
    killed = ""
    started = time.monotonic()
    try:
        while done < len(names) and not killed:
            left = started + WALL_SECONDS_PER_GATE - time.monotonic()
            ready, _, _ = select.select([reader], [], [], max(0.0, left))
            if not ready:
                killed = f"did not finish within {WALL_SECONDS_PER_GATE} s"
                break
            chunk = os.read(reader, MAX_LINE_BYTES)
            if not chunk:
                break
            *complete, buffered = (buffered + chunk).split(b"\n")
            for text in complete:
                line = _parse(text, names[done]) if done < len(names) else None
                if line is None:
                    killed = "reported something that is no verdict"
                    break
                done += 1
                started = time.monotonic()
                yield line
                if line.gate.gate in ESSENTIAL and not line.gate.passed:
                    return
            if len(buffered) > MAX_LINE_BYTES:
                killed = "reported something that is no verdict"
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)  # no effect on a child that is dead already
        _, status = os.waitpid(pid, 0)
    if done < len(names):
        reason = killed or _cause(os.waitstatus_to_exitcode(status))
        name = names[done]
        yield GateResult(name, False, f"{name}: the program {reason}", time.monotonic() - started)


def _parse(text: bytes, expected: str) -> Line | None:
    try:
        line = msgspec.json.decode(text, type=Line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return line if line.gate.gate == expected else None


def _cause(code: int) -> str:
    if code == -signal.SIGXCPU:
        return f"used more than {CPU_SECONDS_PER_GATE} CPU seconds: it hangs or is far too slow"
    if code == -signal.SIGKILL:
        return "was killed by the system, most likely for its use of memory"
    if code < 0:
        return f"crashed the process with {signal.Signals(-code).name}"
    return f"ended the process itself with status {code}"


def _run_child(source: str, spec: VetSpec, names: list[str], writer: int) -> None:
    """The child's whole life: judge the gates one after the other and report each."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _limit_memory()
    subjects: list[Subject] = []

    def run(name: str) -> Outcome:
        if not subjects:
            subjects.append(Subject(source, spec))
        return GATES[name](subjects[0])

    for name in names:
        _limit_cpu()
        gate, facts = judge(name, lambda name=name: run(name))  # type: ignore[misc]
        line = msgspec.json.encode(Line(gate, Facts(**facts)))
        with os.fdopen(os.dup(writer), "wb") as stream:
            stream.write(line + b"\n")


def _limit_cpu() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(time.process_time()) + CPU_SECONDS_PER_GATE
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard < 0 else min(soft, hard), hard))


def _limit_memory() -> None:
    """Bound what the program may allocate beyond what the process already maps, where the system says how much."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (soft if hard < 0 else min(soft, hard), hard))
