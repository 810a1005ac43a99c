"""Scoring one trial: its tasks in order, the account of them, and the answer."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from engine.domain import TrialResult
from engine.linear_attention.account import Account, AccountError, keep_account, open_account
from engine.linear_attention.leaving import Leaving
from engine.linear_attention.session import Session, TrialFailed
from engine.linear_attention.task_scorer import Parked, TaskScorer
from engine.linear_attention.tiers import ScorerSpec, data_hash, load_key
from engine.linear_attention.wire import Channel


def score_trial(spec: ScorerSpec, channel: Channel, leaving: Leaving) -> TrialResult:
    """Run the tasks of a trial that are not finished yet, and report.

    A trial that fails has `failure` set and only its finished tasks. One that is asked to leave has `parked` set, and
    its account is in `progress.json`.
    """
    key = load_key(Path(spec.key))
    session = Session(channel, spec.silence_seconds, leaving)
    account = Account(spec.trial, data_hash(spec.tier, spec.corpus_hash, key))
    failure, parked = "", False
    try:
        account = open_account(spec.progress, account.trial, account.data_hash)
        _run_tasks(spec, session, key, account)
    except (TrialFailed, AccountError) as error:
        failure = str(error)
    except Parked:
        parked = True
    account.scorer_seconds += time.process_time()
    if parked:
        keep_account(spec.progress, account)
    return TrialResult(
        trial=spec.trial.trial,
        tasks=account.tasks,
        parameters=account.parameters,
        mlp_hidden=account.mlp_hidden,
        training_flops=account.training_flops,
        tokens=account.tokens,
        state_floats=account.state_floats,
        cpu_seconds=account.worker_seconds + account.scorer_seconds,
        data_hash=account.data_hash,
        failure=failure,
        parked=parked,
    )


def _run_tasks(spec: ScorerSpec, session: Session, key: bytes, account: Account) -> None:
    corpus = np.fromfile(spec.corpus, dtype=np.uint8) if spec.corpus else None
    for name in spec.trial.tasks[len(account.tasks) :]:
        left = spec.trial.max_cpu_seconds - account.worker_seconds
        if left <= 0:
            raise TrialFailed(f"{account.worker_seconds:.0f} CPU seconds used of {spec.trial.max_cpu_seconds:.0f}")
        scorer = TaskScorer(session, spec, spec.tier.plan(name), key, corpus, account.state_of(name))
        try:
            result, counts, progress = scorer.run(left)
        finally:
            account.worker_seconds += scorer.worker_seconds
        account.finish(result, counts, progress)
    session.end()
