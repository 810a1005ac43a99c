"""A snapshot made of pieces is the snapshot."""

from __future__ import annotations

import time

import msgspec

from engine.client import protocol
from engine.snapshots import Snapshots
from store.folding import fold
from store.state import RunState
from tests.store import history


def test_it_is_what_encoding_the_state_gives_at_every_moment() -> None:
    state, snapshots = RunState(), Snapshots()
    for record in history.records(30, seed=3):
        fold(state, record)
        snapshots.touch(record)
        assert snapshots.encode(state) == msgspec.json.encode(protocol.Snapshot(state))


def test_a_large_run_is_encoded_in_milliseconds() -> None:
    state, snapshots = history.state(2_000, seed=1), Snapshots()
    snapshots.encode(state)
    took = []
    for _ in range(5):
        begin = time.perf_counter()
        line = snapshots.encode(state)
        took.append(time.perf_counter() - begin)
    assert min(took) < 0.02
    decoded = protocol.decode_from_engine(line)
    assert isinstance(decoded, protocol.Snapshot)
    assert decoded.state == state
    assert len(state.calls) < 500
