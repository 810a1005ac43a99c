"""What commands print on a plain terminal: text of unknown origin is inert there too, and hints are true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asi_tui.commands.common import latched_words
from asi_tui.main import main
from engine.client import protocol
from store import events as ev
from store.journal import Journal
from tests.asi_tui.fakes import Fake
from tests.asi_tui.test_safe import HOSTILE, harmless

EVIL = " ".join(text for name, text in HOSTILE.items() if name != "surrogate")


class Told(Fake):
    """Remembers every event of the run that it makes up."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.events: list[ev.AnyEvent] = []

    def record(self, event: ev.AnyEvent, after: float = 1.0) -> ev.Record:
        self.events.append(event)
        return super().record(event, after)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    root = tmp_path / "idle"
    root.mkdir()
    (root / "run.toml").write_text('name = "idle"\n')
    return root


@pytest.mark.parametrize(
    "words",
    ["status", "status --json", "leaderboard", "leaderboard --json", "leaderboard --csv", "approvals",
     "approvals --json", "audit", "audit --verify", "show e0001", "transcript e0001", "run"],
)  # fmt: skip
def test_a_hostile_run_is_inert_on_a_plain_terminal(run: Path, capsys: Any, words: str) -> None:
    with Journal.open(run / "journal") as book:
        for event in Told(EVIL).busy().events:
            book.append(event, f"person:{EVIL}")
    (run / "KILLED").write_text(json.dumps({"actor": EVIL, "reason": EVIL, "time": 1.0}))
    command, *rest = words.split(" ")
    main([command, *rest, str(run)])
    said = capsys.readouterr()
    lines = (said.out + said.err).replace("\r\n", "\n").split("\n")
    assert len(lines) > 1
    assert [line for line in lines if not harmless(line)] == []


@pytest.mark.parametrize("ok", [True, False])
def test_an_engines_answer_is_inert_on_a_plain_terminal(run: Path, monkeypatch: Any, capsys: Any, ok: bool) -> None:
    async def ask_once(*_: Any, **__: Any) -> protocol.Answer:
        return protocol.Answer(1, ok, error=f"no {EVIL}", text=f"yes {EVIL}")

    monkeypatch.setattr("asi_tui.commands.control.running_engine", lambda root: 4242)
    monkeypatch.setattr("engine.client.connection.ask_once", ask_once)
    assert main(["pause", str(run)]) == (0 if ok else 4)
    said = capsys.readouterr()
    (line,) = (said.out or said.err).splitlines()
    assert ("yes" if ok else "no") in line
    assert harmless(line)


def test_a_log_is_inert_in_the_reason_why_an_engine_did_not_start(run: Path, monkeypatch: Any, capsys: Any) -> None:
    from engine.client import launch

    def fails(*_: Any, **__: Any) -> int:
        raise launch.EngineFailed(f"asi: it fell over {EVIL}")

    monkeypatch.setattr(launch, "start_engine", fails)
    assert main(["run", str(run)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("asi: it fell over")
    assert harmless(line)


@pytest.mark.parametrize(("alive", "then"), [(True, "then asi resume idle;"), (False, "then asi run idle")])
def test_the_way_back_from_a_latch_is_told_to_its_end(run: Path, alive: bool, then: str) -> None:
    (run / "KILLED").write_text(json.dumps({"actor": "ada", "reason": "smoke", "time": 1.0}))
    assert then in latched_words(run, alive)
