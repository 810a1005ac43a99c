import copy

import msgspec
import pytest

from store import events as ev
from store import folding
from store.folding import fold
from store.state import RunState
from tests.store import history


def test_every_kind_has_a_handler() -> None:
    assert set(folding._HANDLERS) == set(ev.AnyEvent.__args__)
    tags = [kind.__struct_config__.tag for kind in ev.AnyEvent.__args__]
    assert len(set(tags)) == len(tags)
    assert set(ev.AnyEvent.__args__) >= ev.URGENT


@pytest.mark.parametrize("seed", range(4))
def test_fold_is_deterministic_and_ignores_repeats(seed: int) -> None:
    records = history.records(15, seed)
    first, second = RunState(), RunState()
    for record in records:
        fold(first, record)
    for number, record in enumerate(records):
        # A replay overlaps: what was folded before changes nothing.
        fold(second, record)
        fold(second, records[number // 2])
        fold(second, ev.decode_record(ev.encode(record)))
    assert msgspec.json.encode(first) == msgspec.json.encode(second)
    assert (first.seq, first.head) == (len(records), records[-1].hash)


def test_a_state_can_be_saved_and_continued() -> None:
    records = history.records(15, 1)
    for cut in (1, 57, 140, len(records) - 1):
        state = RunState()
        for record in records[:cut]:
            fold(state, record)
        resumed = msgspec.json.decode(msgspec.json.encode(state), type=RunState)
        for record in records[cut:]:
            fold(state, record)
            fold(resumed, record)
        assert resumed == state


def test_states_share_nothing() -> None:
    records = history.records(15, 2)
    state = RunState()
    for record in records[:80]:
        fold(state, record)
    before = copy.deepcopy(state)
    other = RunState()
    for record in records:
        fold(other, record)
    assert state == before


def test_the_story_ends_as_it_was_told() -> None:
    state = history.state(20, 5)
    assert state.phase == "finished"
    assert len(state.proposals) == 20
    assert len(state.baselines) == 2
    assert not state.running_trials
    assert not state.pending
    assert all(not experiment.open for experiment in state.experiments.values())
    assert {e.outcome for e in state.proposals} == {"ranked", "duplicate", "rejected", "failed"}
    scores = [e.scored.score for e in state.ranking() if e.scored]
    assert scores == sorted(scores, reverse=True)
    paid = [t for t in state.trials.values() if not t.cached]
    vetted = sum(r.data.seconds for r in history.records(20, 5) if isinstance(r.data, ev.ProgramVetted))
    assert state.cpu_seconds == pytest.approx(sum(t.cpu_seconds for t in paid) + vetted)
    assert state.tokens_used == 1200 * len(state.calls)
