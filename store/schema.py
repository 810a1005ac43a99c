"""The projection's tables, and how events and state become their rows."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyarrow as pa

from store import events as ev
from store.state import Experiment, Request, RunState, Trial

FORMAT = 2
"""Version of the tables; a database with another one is rebuilt."""

Row = tuple[Any, ...]

_SQL = {pa.string(): "VARCHAR", pa.int64(): "BIGINT", pa.float64(): "DOUBLE", pa.bool_(): "BOOLEAN"}
_TYPES = {"text": pa.string(), "int": pa.int64(), "real": pa.float64(), "bool": pa.bool_()}

_COLUMNS = {
    "experiments": "id:text number:int origin:text parent:text control:bool seed:int title:text motivation:text "
    "hypothesis:text change:text program:text repairs:int step:text outcome:text reason:text failure:text "
    "duplicate_of:text summary:text opened:real changed:real parameters:int state_floats:int flops_per_token:real "
    "cost_exponent:real step_seconds:real tier:text score:real low:real high:real seeds:int against_parent:real "
    "against_parent_low:real against_parent_high:real noise_seeds:int score_config:text",
    "task_differences": "experiment:text task:text difference:real noise:real",
    "trials": "id:text experiment:text program:text tier:text seed:int status:text level:text started:real ended:real "
    "parameters:int training_flops:real tokens:int state_floats:int cpu_seconds:real wall_seconds:real data_hash:text "
    "cached:bool cheat:bool reason:text",
    "task_scores": "trial:text experiment:text task:text score:real final:real metric:text",
    "approvals": "id:text experiment:text program:text tier:text rule:text asked:real expires:real decision:text "
    "who:text reason:text decided:real",
    "agent_calls": "id:text experiment:text role:text agent:text prompt:text started:real reply:text seconds:real "
    "ok:bool tokens_in:int tokens_out:int cost:real error:text",
    "points": "trial:text task:text step:int steps:int loss:real seconds:real gradient_norm:real",
    "scores": "trial:text task:text step:int value:real loss:real",
    "progress": "trial:text task:text step:int steps:int",
}
SCHEMAS: dict[str, pa.Schema] = {
    table: pa.schema([(name, _TYPES[kind]) for name, kind in (column.split(":") for column in columns.split())])
    for table, columns in _COLUMNS.items()
}
KEYS = {
    "experiments": "id",
    "task_differences": "experiment",
    "trials": "id",
    "task_scores": "trial",
    "approvals": "id",
    "agent_calls": "id",
}
"""The column by which rows of a changed thing are replaced; all rows with its value go, the new ones come."""

LEADERBOARD = """
CREATE VIEW leaderboard AS
WITH steps AS (SELECT trial, sum(step) AS steps FROM progress GROUP BY trial),
measured AS (
    SELECT e.id, max(t.parameters) AS parameters, max(t.state_floats) AS state_floats,
        max(t.training_flops) AS training_flops, max(t.tokens) AS tokens,
        sum(t.tokens) / nullif(sum(t.wall_seconds ORDER BY t.id), 0) AS tokens_per_second,
        sum(s.steps) / nullif(sum(t.wall_seconds ORDER BY t.id) FILTER (s.steps IS NOT NULL), 0) AS steps_per_second
    FROM experiments e
    JOIN trials t ON t.experiment = e.id AND t.program = e.program AND t.tier = e.tier AND t.status = 'finished'
    LEFT JOIN steps s ON s.trial = t.id
    GROUP BY e.id
),
spent AS (SELECT experiment, sum(cpu_seconds ORDER BY id) AS cpu FROM trials WHERE NOT cached GROUP BY experiment)
SELECT row_number() OVER (ORDER BY e.score DESC, e.opened, e.number) AS rank, e.id AS experiment, e.title, e.origin,
    e.parent, e.control, e.tier, e.score, CASE WHEN e.low > -1e9 THEN e.low END AS low,
    CASE WHEN e.high < 1e9 THEN e.high END AS high, e.seeds, e.against_parent, e.against_parent_low,
    e.against_parent_high, coalesce(m.parameters, e.parameters) AS parameters,
    coalesce(m.state_floats, e.state_floats) AS state_floats, m.training_flops, m.tokens,
    coalesce(spent.cpu, 0.0) AS cpu_seconds, m.steps_per_second, m.tokens_per_second, e.program, e.outcome
FROM experiments e
LEFT JOIN measured m ON m.id = e.id
LEFT JOIN spent ON spent.experiment = e.id
WHERE e.score IS NOT NULL AND e.outcome IN ('', 'ranked')
ORDER BY rank
"""


def create_statements() -> list[str]:
    """What makes an empty database into a projection."""
    tables = [
        f"CREATE TABLE {table} ({', '.join(f'{field.name} {_SQL[field.type]}' for field in schema)})"
        for table, schema in SCHEMAS.items()
    ]
    meta = "CREATE TABLE meta (seq BIGINT, head VARCHAR, format INTEGER)"
    return [*tables, meta, LEADERBOARD, f"INSERT INTO meta VALUES (0, '', {FORMAT})"]


class Batch(NamedTuple):
    """What a few records change: rows to put in place of those with the same key, and replies to earlier calls."""

    first: int
    seq: int
    head: str
    changed: dict[str, list[str]]
    rows: dict[str, list[Row]]
    replies: list[Row]


def collect(records: list[ev.Record], state: RunState) -> Batch:
    """Read off `state`, in which `records` are folded already, everything that they changed.

    Cheap and without I/O: call it where the state lives and hand the batch to the thread that writes.
    """
    calls: dict[str, list[Any]] = {}
    decisions: list[Row] = []
    replies: list[Row] = []
    experiments: set[str] = set()
    trials: set[str] = set()
    requests: set[str] = set()
    for record in records:
        event = record.data
        experiments.add(getattr(event, "experiment", ""))
        trials.add(getattr(event, "trial", ""))
        requests.add(getattr(event, "request", ""))
        if isinstance(event, ev.AgentCalled):
            calls[event.call] = _call_row(event, record.time)
        elif isinstance(event, ev.AgentReplied):
            reply = (event.reply, event.seconds, event.ok, event.tokens_in, event.tokens_out, event.cost, event.error)
            if event.call in calls:
                calls[event.call][6:] = reply
            else:
                replies.append((*reply, event.call))
        elif isinstance(event, ev.ApprovalDecided) and not event.request:
            decisions.append(_decision_row(record.seq, record.time, event))
    batch = Batch(records[0].seq, records[-1].seq, records[-1].hash, {}, {}, replies)
    numbers = {name: number for number, name in enumerate(state.experiments)} if experiments else {}
    seen = [state.experiments[name] for name in sorted(experiments & state.experiments.keys())]
    ran = [state.trials[name] for name in sorted(trials & state.trials.keys())]
    asked = [state.requests[name] for name in sorted(requests & state.requests.keys())]
    batch.changed.update(
        experiments=[e.id for e in seen],
        task_differences=[e.id for e in seen],
        trials=[t.id for t in ran],
        task_scores=[t.id for t in ran],
        approvals=[r.id for r in asked] + [row[0] for row in decisions],
        agent_calls=list(calls),
    )
    batch.rows.update(
        experiments=[_experiment_row(e, numbers[e.id]) for e in seen],
        task_differences=[
            (e.id, d.task, d.difference, d.noise) for e in seen if e.scored is not None for d in e.scored.tasks
        ],
        trials=[_trial_row(t) for t in ran],
        task_scores=[(t.id, t.experiment, s.task, s.score, s.final, s.metric) for t in ran for s in t.tasks],
        approvals=[_request_row(r) for r in asked] + decisions,
        agent_calls=[tuple(row) for row in calls.values()],
    )
    return batch


def table(name: str, rows: list[Row]) -> pa.Table:
    """Rows as an Arrow table; integers beyond 64 bits, which only a lying process reports, are cut to fit."""
    schema = SCHEMAS[name]
    columns = []
    for index, field in enumerate(schema):
        values = [row[index] for row in rows]
        if field.type == pa.int64():
            values = [value if value is None else max(-(2**63), min(2**63 - 1, value)) for value in values]
        columns.append(pa.array(values, type=field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _call_row(event: ev.AgentCalled, moment: float) -> list[Any]:
    head = [event.call, event.experiment, event.role, event.agent, event.prompt, moment]
    return [*head, "", None, None, 0, 0, 0.0, ""]


def _decision_row(seq: int, moment: float, event: ev.ApprovalDecided) -> Row:
    decided = (event.decision, event.who, event.reason, moment)
    return (f"decision:{seq}", event.experiment, event.program, event.tier, event.rule, moment, None, *decided)


def _request_row(r: Request) -> Row:
    asked = (r.id, r.experiment, r.program, r.tier, r.rule, r.asked, r.expires)
    return (*asked, r.decision, r.who, r.reason, r.decided if r.decision else None)


def _trial_row(t: Trial) -> Row:
    head = (t.id, t.experiment, t.program, t.tier, t.seed, t.status, t.level, t.started, t.ended or None)
    sizes = (t.parameters, t.training_flops, t.tokens, t.state_floats, t.cpu_seconds, t.wall_seconds)
    return (*head, *sizes, t.data_hash, t.cached, t.cheat, t.reason)


def _experiment_row(e: Experiment, number: int) -> Row:
    head = (e.id, number, e.origin, e.parent, e.control, e.seed, e.title, e.motivation, e.hypothesis, e.change)
    fate = (e.program, e.repairs, e.step, e.outcome, e.reason, e.failure, e.duplicate_of, e.summary)
    sizes = (e.parameters, e.state_floats, e.flops_per_token, e.cost_exponent, e.step_seconds)
    s = e.scored
    if s is None:
        score: Row = ("", None, None, None, None, None, None, None, None, "")
    else:
        against = (s.against_parent, s.against_parent_low, s.against_parent_high)
        score = (s.tier, s.score, s.low, s.high, s.seeds, *against, s.noise_seeds, s.score_config)
    return (*head, *fate, e.opened, e.changed, *sizes, *score)
