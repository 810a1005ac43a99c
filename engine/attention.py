"""Tests of attention: proposals with a known fault, among those that people are asked about.

A test has to look like any other proposal, so before it is decided a part of its record is made up: its agent's call,
and the vetting of the program that it was made from, under the test's own hash. The seal with which it was opened
commits to its being a test; the decision on it is followed by `attention.checked`, which says what it was and what was
made up, and opens the seal. The faulty program itself is never vetted, executed or ranked; no proposal descends from
it, nothing is learned from it, and no cap or share counts it.
"""

from __future__ import annotations

import asyncio
import random
import re

import msgspec

from engine import faults, sampling
from engine.decoys import DecoysError
from engine.domain import GateResult, VetReport
from engine.laboratory import Laboratory
from store import events as ev
from store.state import Experiment, Request, RunState

REASON = "a test of attention"
MOST_PREDICTIONS = 4
PARENTS = 8


async def open_test(lab: Laboratory) -> bool:
    """Open a test, ready for its risks to be assessed; False where no program fits at present.

    Raises:
        OSError: its truth cannot be written; nothing was opened.
    """
    runtime = lab.runtime
    state = lab.decoys.without(runtime.state)
    number = len(runtime.state.proposals) - len(state.proposals)
    draw = random.Random(f"{runtime.config.loop.seed}:attention:test:{number}")
    candidates = [entry for entry in sampling.pool(state) if entry.vetted and entry.program]
    parents = draw.sample(candidates[:PARENTS], min(PARENTS, len(candidates)))
    known = {entry.program for entry in runtime.state.experiments.values()}
    unasked, used = lab.decoys.unasked(runtime.state), lab.decoys.used(runtime.state)
    for left_out in ([*unasked, *used], unasked):
        for parent in parents:
            source = await runtime.text(parent.program)
            made = await asyncio.to_thread(faults.make, source, draw, left_out)
            if made is not None and (blob := await runtime.put(made[0])) not in known:
                return await _open(lab, state, parent, blob, made[1], draw)
    return False


async def _open(
    lab: Laboratory, state: RunState, parent: Experiment, blob: str, fault: faults.Fault, draw: random.Random
) -> bool:
    runtime = lab.runtime
    report = await runtime.put(msgspec.json.encode(_report(parent)).decode())
    hashed = await asyncio.to_thread(lab.domain.syntax_hash, await runtime.text(blob))
    name = f"e{len(runtime.state.proposals) + 1:04d}"
    draft = _draft(lab, name, parent, blob, fault, draw)
    reply = await runtime.put(msgspec.json.encode(draft).decode())
    seal = await asyncio.to_thread(lab.decoys.seal, name, fault.what)
    if name in runtime.state.experiments:
        return True  # a person's proposal took the number meanwhile; the next round takes another
    below = [entry.id for entry in sampling.pool(state) if entry.id != parent.id]
    origin = lab.proposer(state)
    # All at once: whoever looks, and whoever drives experiments, sees it only when it is ready to be assessed.
    runtime.emit(
        ev.ExperimentOpened(
            name, origin, parent.id, below[: runtime.config.sampling.references], False, draw.getrandbits(31), seal
        )
    )
    agent, call = lab.agent_of(origin).name, f"{name}-researcher-{draw.getrandbits(24):06x}"
    runtime.emit(ev.AgentCalled(call, name, "researcher", agent, _prompt(runtime.state, parent)))
    runtime.emit(ev.AgentReplied(call, name, "researcher", reply, round(draw.uniform(0.02, 0.2), 3)))
    runtime.emit(draft, f"agent:{agent}")
    runtime.emit(_vetted(name, parent, blob, report, hashed))
    return True


def _prompt(state: RunState, parent: Experiment) -> str:
    """The prompt from which a proposal of this kind could have come: the parent's own, or the newest one."""
    asked = [call for call in state.calls.values() if call.role == "researcher"]
    own = [call for call in asked if call.experiment == parent.id]
    return (own or asked)[-1].prompt if asked else ""


def _draft(
    lab: Laboratory, name: str, parent: Experiment, blob: str, fault: faults.Fault, draw: random.Random
) -> ev.ProposalDrafted:
    scored = parent.scored
    stands = f"stands at {scored.score:+.2f} noise units against the baseline" if scored else "is not yet scored"
    tasks = [task.name for task in lab.domain.tasks(lab.tier)]
    expected = [
        ev.Prediction(task, "up", round(draw.uniform(0.005, 0.03), 4), fault.change)
        for task in draw.sample(tasks, min(MOST_PREDICTIONS, len(tasks)))
    ]
    return ev.ProposalDrafted(
        experiment=name,
        title=f"{parent.title or parent.id}, {fault.title}"[:200],
        motivation=f"The parent, {parent.title or parent.id}, {stands}. {fault.motivation}",
        hypothesis=fault.hypothesis,
        program=blob,
        predictions=[*expected, ev.Prediction("score", "up", round(draw.uniform(0.2, 1.2), 2), fault.change)],
        change=fault.change,
    )


def _report(parent: Experiment) -> VetReport:
    return VetReport(
        passed=True,
        gates=[GateResult(gate.gate, gate.passed, gate.evidence) for gate in parent.gates],
        parameters=parent.parameters,
        flops_per_token=parent.flops_per_token,
        state_floats=parent.state_floats,
        cost_exponent=parent.cost_exponent,
        step_seconds=parent.step_seconds,
    )


def _vetted(name: str, parent: Experiment, program: str, report: str, syntax_hash: str) -> ev.ProgramVetted:
    """The parent's vetting, as if it had been that of the test's program; `attention.checked` says so."""
    return ev.ProgramVetted(
        experiment=name,
        program=program,
        syntax_hash=syntax_hash,
        passed=True,
        gates=list(parent.gates),
        report=report,
        parameters=parent.parameters,
        state_floats=parent.state_floats,
        flops_per_token=parent.flops_per_token,
        cost_exponent=parent.cost_exponent,
        step_seconds=parent.step_seconds,
    )


# --- its end ----------------------------------------------------------------------------------------------------------


async def intercept(lab: Laboratory, entry: Experiment) -> bool:
    """End an experiment that is a decided test, or whose seal cannot be opened; True where it was ended.

    To be called before whatever follows a decision, and before anything of the experiment runs.
    """
    try:
        if not lab.decoys.is_decoy(entry):
            return False
    except DecoysError as error:
        lab.runtime.note(f"{error}; it is refused", "error")
        await lab.runtime.commit(ev.ExperimentClosed(entry.id, "rejected", str(error)[:500]))
        return True
    if entry.step == "assess":
        return False
    asked = [one for one in lab.runtime.state.requests.values() if one.experiment == entry.id and _is_about(one, entry)]
    if entry.step == "gate" and not (asked and asked[-1].decision):
        return False
    await conclude(lab, entry, asked[-1] if asked else None)
    return True


def _is_about(request: Request, entry: Experiment) -> bool:
    return request.subject == "program" and request.program == entry.program


async def conclude(lab: Laboratory, entry: Experiment, request: Request | None) -> None:
    """Say what a test was, and close it. A test that no person has decided counts neither as caught nor as missed."""
    what, nonce = lab.decoys.reveal(entry.id)
    what = f"{what}; its agent's call and its vetting were made up from those of {entry.parent}"
    reason = f"{REASON}: {what}"
    if request is not None and request.decision in ("approve", "reject"):
        caught = request.decision == "reject"
        await lab.runtime.commit(ev.AttentionChecked(request.id, entry.id, request.who, caught, what, nonce))
        for rule in [rule.name for rule in lab.policy.rule if re.search(rf"\b{re.escape(entry.id)}\b", rule.name)]:
            lab.runtime.note(f"the policy's rule “{rule}” was made of a test of attention; take it out", "warning")
    else:
        reason = f"{REASON}, which no person has decided: {what}; nonce {nonce}"
    await lab.runtime.commit(ev.ExperimentClosed(entry.id, "rejected", reason[:500]))


def is_unfinished(lab: Laboratory, entry: Experiment) -> bool:
    """Whether a test was left half opened, by a crash between its events: it must not go the way of a proposal."""
    return lab.decoys.standing(entry) == "decoy" and entry.step in ("propose", "dedupe", "vet", "repair")
