"""The one function that computes a run's state from its events.

The engine decides from the folded state, the terminal draws it, the replay animates it. `fold` is deterministic, reads
no clock and does no I/O. It takes over the state that it is given and returns it changed, so that a journal of a
million events folds in linear time; who wants to keep the old state copies it first.
"""

from __future__ import annotations

from collections.abc import Callable

from store import events as ev
from store.event import FORK
from store.state import Call, Experiment, Note, Phase, Request, RunState, Trial, Vote

KEEP_NOTES = 50
KEEP_CALLS = 200
"""So many of the newest agent calls are kept whatever became of their experiments; the projection has them all."""


def _touch(state: RunState, record: ev.Record, experiment: str) -> Experiment:
    found = state.experiments[experiment]
    found.changed = record.time
    return found


def _phase(state: RunState, record: ev.Record, phase: Phase, reason: str = "") -> None:
    """Change the phase; time counts as working only while the run is running."""
    if state.working_since and phase != "running":
        state.working_seconds += max(0.0, record.time - state.working_since)
        state.working_since = 0.0
    if phase == "running" and not state.working_since:
        state.working_since = record.time
    state.phase, state.phase_reason = phase, reason


def _note(state: RunState, record: ev.Record, text: str, level: str = "info") -> None:
    state.notes.append(Note(record.time, level, text))
    del state.notes[:-KEEP_NOTES]


def _run_created(state: RunState, record: ev.Record, event: ev.RunCreated) -> None:
    state.name, state.format, state.version = event.name, event.format, event.version
    state.created = record.time


def _engine_started(state: RunState, record: ev.Record, event: ev.EngineStarted) -> None:
    state.engine_pid, state.engine_started = event.pid, record.time
    state.agents = event.agents
    if state.phase in ("running", "finished", "stopped", "frozen"):
        # After a crash the clock stops at the last event that the dead engine wrote.
        if state.working_since:
            state.working_seconds += max(0.0, state.time - state.working_since)
            state.working_since = 0.0
        state.phase, state.phase_reason = "created", ""


def _engine_stopped(state: RunState, record: ev.Record, event: ev.EngineStopped) -> None:
    state.engine_pid = 0
    if state.working_since:
        _phase(state, record, "stopped", event.reason)


def _run_armed(state: RunState, record: ev.Record, event: ev.RunArmed) -> None:
    state.armed = event
    if state.phase not in ("paused", "parked", "frozen"):
        _phase(state, record, "armed")


def _arming_failed(state: RunState, record: ev.Record, event: ev.ArmingFailed) -> None:
    state.armed = None
    _note(state, record, f"arming failed: {event.reason}", "error")


def _run_killed(state: RunState, record: ev.Record, event: ev.RunKilled) -> None:
    state.armed = None
    _phase(state, record, "killed", event.reason)
    proof = "death proved" if event.proved else "death NOT proved"
    _note(state, record, f"killed by {event.who}: {event.processes} processes, {proof}", "error")


def _run_rearmed(state: RunState, record: ev.Record, event: ev.RunRearmed) -> None:
    if state.phase == "killed":  # one that was only frozen under the latch stays so until somebody resumes it
        _phase(state, record, "created", event.reason)
    _note(state, record, f"re-armed: {event.reason}")


def _run_stopped(state: RunState, record: ev.Record, event: ev.RunStopped) -> None:
    _phase(state, record, "finished" if event.finished else "stopped", event.reason)


def _budget(state: RunState, record: ev.Record, event: ev.BudgetExceeded) -> None:
    word = "reached" if event.hard else "at 80 % of"
    state.warned.append(f"{event.currency}:{'hard' if event.hard else 'soft'}")
    _note(state, record, f"budget {word} the cap: {event.currency} {event.used:g} of {event.cap:g}", "warning")


def _agent_called(state: RunState, record: ev.Record, event: ev.AgentCalled) -> None:
    state.calls[event.call] = Call(
        event.call, event.experiment, event.role, event.agent, event.prompt, record.time,
        tokens=event.tokens, cost=event.cost,
    )  # fmt: skip
    _forget_calls(state)


def _forget_calls(state: RunState) -> None:
    """Let go of old calls of closed experiments; only now and then, so that a long journal folds in linear time."""
    if len(state.calls) < 2 * KEEP_CALLS:
        return
    for name in list(state.calls)[:-KEEP_CALLS]:
        owner = state.experiments.get(state.calls[name].experiment)
        if owner is None or not owner.open:
            del state.calls[name]


def _agent_replied(state: RunState, record: ev.Record, event: ev.AgentReplied) -> None:
    call = state.calls[event.call]
    call.reply, call.seconds, call.ok, call.error = event.reply, event.seconds, event.ok, event.error
    call.tokens, call.cost = 0, 0.0
    state.tokens_used += event.tokens_in + event.tokens_out
    state.money += event.cost


def _experiment_opened(state: RunState, record: ev.Record, event: ev.ExperimentOpened) -> None:
    state.experiments[event.experiment] = Experiment(
        event.experiment,
        event.origin,
        event.parent,
        list(event.references),
        event.control,
        event.seed,
        opened=record.time,
        changed=record.time,
        seal=event.seal,
    )


def _proposal_drafted(state: RunState, record: ev.Record, event: ev.ProposalDrafted) -> None:
    found = _touch(state, record, event.experiment)
    found.title, found.motivation, found.hypothesis = event.title, event.motivation, event.hypothesis
    found.program, found.genome, found.change = event.program, event.genome, event.change
    found.predictions = list(event.predictions)
    found.step = "dedupe" if found.origin != "baseline" else "vet"


def _proposal_duplicate(state: RunState, record: ev.Record, event: ev.ProposalDuplicate) -> None:
    found = _touch(state, record, event.experiment)
    found.duplicate_of = event.of
    found.failure = f"repeats {event.of} ({event.how})"


def _program_vetted(state: RunState, record: ev.Record, event: ev.ProgramVetted) -> None:
    found = _touch(state, record, event.experiment)
    found.vetted, found.gates = event.passed, list(event.gates)
    found.syntax_hash, found.functional_hash = event.syntax_hash, event.functional_hash
    found.parameters, found.state_floats = event.parameters, event.state_floats
    found.flops_per_token, found.cost_exponent = event.flops_per_token, event.cost_exponent
    found.step_seconds = event.step_seconds
    state.cpu_seconds += event.seconds  # the battery keeps one core busy
    found.cpu_seconds += event.seconds
    failed = next((gate for gate in event.gates if not gate.passed), None)
    found.failure = "" if event.passed or failed is None else f"{failed.gate}: {failed.evidence}"
    found.step = "assess" if event.passed else "repair"


def _program_repaired(state: RunState, record: ev.Record, event: ev.ProgramRepaired) -> None:
    found = _touch(state, record, event.experiment)
    found.program, found.repairs, found.vetted = event.new, event.attempt, False
    found.diagnoses.append(event.diagnosis)
    found.genome = event.genome or found.genome
    found.approved_before = found.approved_program or found.approved_before
    found.approved_program = found.approved_tier = ""
    found.step = "vet"


def _risk_assessed(state: RunState, record: ev.Record, event: ev.RiskAssessed) -> None:
    found = _touch(state, record, event.experiment)
    found.findings, found.predicted_cpu_seconds = list(event.findings), event.cpu_seconds
    found.predicted_cpu_low, found.predicted_cpu_high = event.cpu_seconds_low, event.cpu_seconds_high
    found.novelty = event.novelty
    found.step = "gate"


def _approval_requested(state: RunState, record: ev.Record, event: ev.ApprovalRequested) -> None:
    if event.experiment:
        _touch(state, record, event.experiment)
    state.requests[event.request] = Request(
        event.request, event.experiment, event.program, event.tier, event.rule, record.time, event.expires,
        people=event.people, of=event.of, subject=event.subject, risk=event.risk, cpu_seconds=event.cpu_seconds,
        approved=event.approved, question=event.reason,
    )  # fmt: skip


def _approval_voted(state: RunState, record: ev.Record, event: ev.ApprovalVoted) -> None:
    request = state.requests[event.request]
    request.votes = [vote for vote in request.votes if vote.who != event.who]
    request.votes.append(
        Vote(
            event.who, event.decision, record.time, event.reason, event.takes_effect, event.seconds, event.seen,
            event.signed.key if event.signed is not None else "",
        )
    )  # fmt: skip
    if event.decision == "defer":
        request.reason = event.reason


def _approval_withdrawn(state: RunState, record: ev.Record, event: ev.ApprovalWithdrawn) -> None:
    request = state.requests[event.request]
    request.votes = [vote for vote in request.votes if vote.who != event.who]


def _approval_decided(state: RunState, record: ev.Record, event: ev.ApprovalDecided) -> None:
    request = state.requests.get(event.request)
    if event.decision == "defer":
        if request is not None:
            request.reason = event.reason
        return
    if request is not None:
        request.decision, request.who = event.decision, event.who
        request.reason, request.decided = event.reason, record.time
    if request is not None and request.subject != "program":
        return
    found = _touch(state, record, event.experiment)
    if event.decision == "approve" and event.program == found.program:
        found.approved_program, found.approved_tier = event.program, event.tier
        found.approved_until, found.approved_cpu_seconds = event.until, event.cpu_seconds
        found.step = "train"
    elif event.decision in ("reject", "expire"):
        found.failure = f"{event.decision} by {event.who}: {event.reason}".rstrip(": ")


def _attention_checked(state: RunState, record: ev.Record, event: ev.AttentionChecked) -> None:
    state.caught += event.caught
    state.missed += not event.caught
    said = "was rejected" if event.caught else f"was approved by {event.who}"
    text = f"{event.request} was a test of attention and {said}: {event.what}"
    _note(state, record, text, "info" if event.caught else "warning")


def _question_asked(state: RunState, record: ev.Record, event: ev.QuestionAsked) -> None:
    _touch(state, record, event.experiment)


def _policy_adopted(state: RunState, record: ev.Record, event: ev.PolicyAdopted) -> None:
    state.policy, state.policy_name = event.policy, event.name
    warning = f"; {event.warning}" if event.warning else ""
    _note(state, record, f"policy {event.name} by {event.who}{warning}", "warning" if event.warning else "info")


def _signers_adopted(state: RunState, record: ev.Record, event: ev.SignersAdopted) -> None:
    state.signers, state.people = event.signers, list(event.people)


def _autonomy_changed(state: RunState, record: ev.Record, event: ev.AutonomyChanged) -> None:
    state.autonomy = event.level
    _note(state, record, f"autonomy {event.level}: {event.reason}".rstrip(": "))


def _run_forked(state: RunState, record: ev.Record, event: ev.RunForked) -> None:
    """The copy of a run is a run of its own: what was asked there cannot be answered here."""
    state.name, state.forked = event.name, event
    state.engine_pid = 0
    for request in state.pending:
        request.decision, request.who, request.decided = "expire", FORK, record.time
    _phase(state, record, "created")


def _experiment_held(state: RunState, record: ev.Record, event: ev.ExperimentHeld) -> None:
    _touch(state, record, event.experiment).held = True


def _experiment_released(state: RunState, record: ev.Record, event: ev.ExperimentReleased) -> None:
    _touch(state, record, event.experiment).held = False


def _lease_lost(state: RunState, record: ev.Record, event: ev.LeaseLost) -> None:
    text = f"no heartbeat of the engine for {event.seconds:.0f} s: {event.sandboxes} sandboxes killed by the guard"
    _note(state, record, text, "error")


def _clock_jumped(state: RunState, record: ev.Record, event: ev.ClockJumped) -> None:
    if state.working_since:
        state.working_since += event.seconds


def _trial_started(state: RunState, record: ev.Record, event: ev.TrialStarted) -> None:
    found = _touch(state, record, event.experiment)
    parked = state.trials.get(event.trial)
    if event.resumed and parked is not None:
        parked.status, parked.ended, parked.level = "running", 0.0, event.level
        found.step = "train"
        return
    state.trials[event.trial] = Trial(
        event.trial,
        event.experiment,
        event.program,
        event.tier,
        event.seed,
        level=event.level,
        started=record.time,
    )
    found.step = "train"
    if event.trial not in found.trials:
        found.trials.append(event.trial)


def _trial_anomaly(state: RunState, record: ev.Record, event: ev.TrialAnomaly) -> None:
    _touch(state, record, event.experiment)
    state.trials[event.trial].reason = f"{event.what}: {event.evidence}"
    _note(state, record, f"{event.trial} {event.what}: {event.evidence}", "warning")


def _trial_finished(state: RunState, record: ev.Record, event: ev.TrialFinished) -> None:
    found = _touch(state, record, event.experiment)
    trial = state.trials.get(event.trial)
    if trial is None:
        trial = Trial(event.trial, event.experiment, event.program, event.tier, event.seed, started=record.time)
        state.trials[event.trial] = trial
        found.trials.append(event.trial)
    trial.status, trial.ended, trial.tasks = "finished", record.time, list(event.tasks)
    trial.parameters, trial.training_flops, trial.tokens = event.parameters, event.training_flops, event.tokens
    trial.state_floats, trial.data_hash, trial.cached = event.state_floats, event.data_hash, event.cached
    trial.wall_seconds = event.wall_seconds
    _spend(state, trial, event.cpu_seconds, count=not event.cached)
    found.step = "score"


def _spend(state: RunState, trial: Trial, cpu_seconds: float, count: bool = True) -> None:
    """Set what a trial has used so far; the run is charged with what is new."""
    if count:
        fresh = max(0.0, cpu_seconds - trial.cpu_seconds)
        state.cpu_seconds += fresh
        state.experiments[trial.experiment].cpu_seconds += fresh
    trial.cpu_seconds = cpu_seconds


def _trial_failed(state: RunState, record: ev.Record, event: ev.TrialFailed) -> None:
    found = _touch(state, record, event.experiment)
    trial = state.trials[event.trial]
    trial.status, trial.ended, trial.cheat = "failed", record.time, event.cheat
    trial.reason = event.reason
    _spend(state, trial, event.cpu_seconds)
    found.failure = f"{event.reason}: {event.evidence}".rstrip(": ")
    found.step = "repair"


def _trial_parked(state: RunState, record: ev.Record, event: ev.TrialParked) -> None:
    _touch(state, record, event.experiment)
    trial = state.trials[event.trial]
    trial.status, trial.ended, trial.checkpoint = "parked", record.time, event.checkpoint
    trial.reason, trial.data_hash = f"parked by {event.who}", event.data_hash
    _spend(state, trial, event.cpu_seconds)


def _trial_killed(state: RunState, record: ev.Record, event: ev.TrialKilled) -> None:
    _touch(state, record, event.experiment)
    trial = state.trials[event.trial]
    trial.status, trial.ended, trial.reason = "killed", record.time, f"ended by {event.who}"
    _spend(state, trial, max(trial.cpu_seconds, event.cpu_seconds))


def _experiment_scored(state: RunState, record: ev.Record, event: ev.ExperimentScored) -> None:
    found = _touch(state, record, event.experiment)
    found.scored = event
    if found.step == "score":
        found.step = "analyse"


def _experiment_analysed(state: RunState, record: ev.Record, event: ev.ExperimentAnalysed) -> None:
    found = _touch(state, record, event.experiment)
    found.summary, found.lessons, found.outcomes = event.summary, list(event.lessons), list(event.outcomes)


def _experiment_closed(state: RunState, record: ev.Record, event: ev.ExperimentClosed) -> None:
    found = _touch(state, record, event.experiment)
    found.step, found.outcome, found.reason = "closed", event.outcome, event.reason


def _handler(name: str, phase: Phase) -> Callable[[RunState, ev.Record, ev.Event], None]:
    def change(state: RunState, record: ev.Record, event: ev.Event) -> None:
        _phase(state, record, phase, getattr(event, name, ""))

    return change


_HANDLERS: dict[type, Callable[..., None]] = {
    ev.RunCreated: _run_created,
    ev.EngineStarted: _engine_started,
    ev.EngineStopped: _engine_stopped,
    ev.JournalRepaired: lambda s, r, e: _note(
        s, r, f"journal repaired: {e.bytes_cut} bytes cut after record {e.last_good}", "warning"
    ),
    ev.RunArmed: _run_armed,
    ev.ArmingFailed: _arming_failed,
    ev.RunPaused: _handler("reason", "paused"),
    ev.RunFrozen: _handler("reason", "frozen"),
    ev.RunParked: _handler("reason", "parked"),
    ev.RunResumed: _handler("", "running"),
    ev.RunStopped: _run_stopped,
    ev.RunKilled: _run_killed,
    ev.RunRearmed: _run_rearmed,
    ev.RunForked: _run_forked,
    ev.AutonomyChanged: _autonomy_changed,
    ev.PolicyAdopted: _policy_adopted,
    ev.SignersAdopted: _signers_adopted,
    ev.BudgetExceeded: _budget,
    ev.LeaseLost: _lease_lost,
    ev.ClockJumped: _clock_jumped,
    ev.NoteAdded: lambda s, r, e: _note(s, r, e.text, e.level),
    ev.AgentCalled: _agent_called,
    ev.AgentReplied: _agent_replied,
    ev.ExperimentOpened: _experiment_opened,
    ev.ProposalDrafted: _proposal_drafted,
    ev.ProposalDuplicate: _proposal_duplicate,
    ev.ProgramVetted: _program_vetted,
    ev.ProgramRepaired: _program_repaired,
    ev.RiskAssessed: _risk_assessed,
    ev.ApprovalRequested: _approval_requested,
    ev.ApprovalVoted: _approval_voted,
    ev.ApprovalWithdrawn: _approval_withdrawn,
    ev.ApprovalDecided: _approval_decided,
    ev.AttentionChecked: _attention_checked,
    ev.QuestionAsked: _question_asked,
    ev.ExperimentHeld: _experiment_held,
    ev.ExperimentReleased: _experiment_released,
    ev.TrialStarted: _trial_started,
    ev.TrialAnomaly: _trial_anomaly,
    ev.TrialFinished: _trial_finished,
    ev.TrialFailed: _trial_failed,
    ev.TrialParked: _trial_parked,
    ev.TrialKilled: _trial_killed,
    ev.ExperimentScored: _experiment_scored,
    ev.ExperimentAnalysed: _experiment_analysed,
    ev.ExperimentClosed: _experiment_closed,
}


def fold(state: RunState, record: ev.Record) -> RunState:
    """Apply one record to the state and return it. Records at or below `state.seq` are ignored (replays)."""
    if record.seq <= state.seq:
        return state
    _HANDLERS[type(record.data)](state, record, record.data)
    state.seq, state.head, state.time = record.seq, record.hash, record.time
    return state
