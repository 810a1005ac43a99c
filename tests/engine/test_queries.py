"""Questions and presence, through the real socket: a run that is over is served to real clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from engine import queries
from engine.client import protocol
from engine.client.connection import Connected, Connection, ask_once
from engine.client.rundir import RunPaths
from engine.commands import Commands
from engine.laboratory import Laboratory
from engine.memory import Memory
from engine.runtime import Runtime
from engine.server import QUESTIONS, Server
from engine.supervision.deadman import DeadMan
from store import projection
from store.audit import verify_run
from store.config import Deadman, RunConfig
from tests.store import history

ENDLESS = "WITH RECURSIVE t AS (SELECT 1 a UNION ALL SELECT a + 1 FROM t) SELECT max(a) FROM t"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class House:
    """A server over a run, and its clients."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = Clock()
        self.runtime = Runtime(root, RunConfig(name="history"))
        nothing = cast(Any, None)
        memory = Memory(self.runtime.paths.vectors, self.runtime)
        self.deadman = DeadMan(Deadman(pause_minutes=60), self.clock)
        self.commands = Commands(
            Laboratory(
                runtime=self.runtime, domain=nothing, runner=nothing, slots=nothing, halting=nothing, deadman=self.deadman,
                agent=nothing, policy=nothing, level="L2", data_hash="", recall=memory.recall, remember=memory.remember,
            ),
            lambda reason: None,
        )  # fmt: skip
        paths = self.runtime.paths
        self.server = Server(
            "history", paths.socket, paths.token, lambda: self.runtime.state, self.commands.handle, self.runtime.snapshot
        )
        self.pumps: list[asyncio.Task[None]] = []

    async def client(self, **fields: Any) -> Connection:
        connection = Connection(self.root, **fields)
        ready = asyncio.Event()

        async def pump() -> None:
            async for message in connection.messages():
                if isinstance(message, Connected):
                    ready.set()

        self.pumps.append(asyncio.create_task(pump()))
        await asyncio.wait_for(ready.wait(), 5)
        return connection

    async def close(self) -> None:
        for pump in self.pumps:
            await self.leave(pump)
        await self.server.close()
        self.commands.queries.close()
        await self.runtime.close()

    @staticmethod
    async def leave(pump: asyncio.Task[None]) -> None:
        pump.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pump


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    root = history.write_run(tmp_path / "run", 20, seed=5)
    RunPaths(root).create()
    found = House(root)
    await found.runtime.open_projection()
    await found.server.start()
    yield found
    await found.close()


async def ask(client: Connection, name: str, target: str = "", kind: Any = Any, **fields: Any) -> Any:
    answer = await client.query(name, target, **fields)
    assert answer.ok, answer.error
    return msgspec.json.decode(answer.text, type=kind)


async def test_the_leaderboard_by_pages(house: House) -> None:
    client = await house.client()
    whole = await ask(client, "leaderboard", kind=protocol.BoardPage)
    assert [row.experiment for row in whole.rows] == [e.id for e in house.runtime.state.ranking()]
    assert all(row.tasks for row in whole.rows)
    page = await ask(
        client, "leaderboard", "cpu_seconds", protocol.BoardPage, offset=1, limit=2, where="score > 0", reverse=True
    )
    good = sorted((r for r in whole.rows if r.score > 0), key=lambda r: (-r.cpu_seconds, r.rank))
    assert (page.rows, page.total) == (good[1:3], len(good))
    assert (await ask(client, "leaderboard", kind=protocol.BoardPage, limit=10**9)).total == whole.total


@pytest.mark.parametrize(
    ("name", "target", "fields", "error"),
    [
        ("leaderboard", "", {"where": "1=1; drop table trials"}, "columns are rank"),
        ("leaderboard", "", {"where": "title in (select content from read_text('/etc/passwd'))"}, "Permission|Error"),
        ("leaderboard", "", {"where": "x" * 1_000_000}, "at most 20,000"),
        ("leaderboard", "", {"offset": -1}, "offset"),
        ("leaderboard", "", {"limit": 0}, "limit"),
        ("leaderboard", "nonsense", {}, "ordered by"),
        ("sql", "DROP TABLE trials", {}, "one SELECT"),
        ("sql", "SELECT * FROM read_text('/etc/passwd')", {}, "disabled"),
        ("audit", "", {"offset": -5}, "offset"),
        ("output", "../../etc", {}, "no trial"),
        ("output", "e0001-s0", {}, "printed nothing"),
        ("blob", "0" * 64, {}, "missing"),
    ],
)
async def test_what_is_wrong_gets_one_line(
    house: House, name: str, target: str, fields: dict[str, Any], error: str
) -> None:
    client = await house.client()
    answer = await client.query(name, target, **fields)
    assert not answer.ok
    assert "\n" not in answer.error
    assert len(answer.error) <= 1_000
    with pytest.raises(AssertionError, match=error):
        assert answer.ok, answer.error
    assert (await client.command("present")).ok


async def test_a_free_question(house: House) -> None:
    client = await house.client()
    table = await ask(client, "sql", "SELECT id, score FROM experiments ORDER BY id", protocol.Table, limit=3)
    assert table.columns == ["id", "score"]
    assert [row[0] for row in table.rows] == ["b-gated_deltanet", "b-linear_attention", "e0001"]
    assert table.cut


async def test_commands_and_pages_do_not_wait_behind_a_slow_question(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "ASK_SECONDS", 1.5)
    client = await house.client()
    slow = asyncio.create_task(client.query("sql", ENDLESS))
    await asyncio.sleep(0.1)
    begin = time.monotonic()
    assert (await client.command("present")).text == "seen"
    await ask(client, "leaderboard", kind=protocol.BoardPage)
    assert time.monotonic() - begin < 0.7
    assert not slow.done()
    answer = await slow
    assert answer.error == "the question was stopped: it took longer than 1.5 s"
    assert (await client.query("sql", "SELECT 1")).ok


async def test_a_question_ends_with_its_client_and_there_is_a_limit(house: House) -> None:
    client = await house.client()
    slow = [asyncio.create_task(client.query("sql", ENDLESS)) for _ in range(QUESTIONS)]
    await asyncio.sleep(0.3)
    refused = await client.query("sql", "SELECT 1")
    assert "at once" in refused.error
    assert (await client.command("present")).ok
    await house.leave(house.pumps.pop())
    await asyncio.gather(*slow, return_exceptions=True)
    other = await house.client()
    begin = time.monotonic()
    assert (await other.query("sql", "SELECT 1")).ok
    assert time.monotonic() - begin < 5


async def test_commands_stay_in_order_and_outlive_their_client(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    async def slowly(command: protocol.Command) -> str:
        await asyncio.sleep(0.2)
        done.append(command.reason)
        return ""

    monkeypatch.setitem(house.commands._table, "pause", slowly)
    client = await house.client()
    waiting = [asyncio.create_task(client.command("pause", reason=str(n))) for n in range(4)]
    await asyncio.sleep(0.3)
    await house.leave(house.pumps.pop())
    await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.sleep(0.9)
    assert done == ["0", "1", "2", "3"]


async def test_a_fault_of_ours_is_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(command: protocol.Command) -> str:
        raise RuntimeError("this\nbroke")

    monkeypatch.setitem(house.commands._table, "pause", broken)
    client = await house.client()
    assert (await client.command("pause")).error == "pause failed: RuntimeError: this broke"
    assert (await client.command("present")).ok


async def test_presence_of_two(house: House) -> None:
    first = await house.client(who="ada", terminal="pts/3 \x1b[31m10.0.0.7")
    await house.client(who="grace" * 100, terminal="pts/4")
    await house.client(who="", terminal="pts/5")
    await house.client(who="script", live=False)
    house.clock.now = 100.0
    assert [s.who for s in house.server.supervisors] == ["ada", ("grace" * 12)[:59] + "…"]
    assert house.server.supervisors[0].terminal == "pts/3 [31m10.0.0.7"
    assert (await first.command("look", target="r00042")).ok
    ada = house.server.supervisors[0]
    assert (ada.looking, ada.acted) == ("r00042", 0.0)
    assert house.deadman.absent == 100.0, "a look renews nothing"
    await first.command("present")
    assert abs(house.server.supervisors[0].acted - time.time()) < 5
    assert house.deadman.absent == 0.0
    await first.command("look", target="x" * 500)
    assert len(house.server.supervisors[0].looking) == 40
    await first.command("look")
    assert house.server.supervisors[0].looking == ""
    assert house.server.peers == {os.getpid()}
    await house.leave(house.pumps.pop(0))
    await asyncio.sleep(0.1)
    assert len(house.server.supervisors) == 1


async def test_the_journal_from_its_end(house: House) -> None:
    client = await house.client()
    page = await ask(client, "audit", kind=protocol.AuditPage, limit=5)
    newest = house.runtime.state.seq
    assert [line.seq for line in page.lines] == list(range(newest, newest - 5, -1))
    assert page.lines[0].hash == house.runtime.state.head
    assert page.lines[0].prev == page.lines[1].hash
    assert page.before == newest - 4
    following = await ask(client, "audit", kind=protocol.AuditPage, limit=5, offset=page.before)
    assert following.lines[0].seq == newest - 5
    about = await ask(client, "audit", "e0003", protocol.AuditPage, where="Approval")
    assert about.lines
    assert all(line.experiment == "e0003" for line in about.lines)
    assert (await ask(client, "audit", kind=protocol.AuditPage, offset=2**50)).lines[0].seq == newest
    last = await ask(client, "audit", kind=protocol.AuditPage, offset=2)
    assert ([line.seq for line in last.lines], last.before) == ([1], 0)


async def test_a_full_check_is_made_once_for_all_who_ask(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []

    def counted(root: Path) -> Any:
        runs.append(root)
        time.sleep(0.3)
        return verify_run(root)

    monkeypatch.setattr(queries, "verify_run", counted)
    client = await house.client()
    checks = [asyncio.create_task(ask(client, "verify", kind=protocol.Verified)) for _ in range(3)]
    await asyncio.sleep(0.1)
    assert (await client.command("present")).ok
    assert not checks[0].done()
    for check in checks:
        verified = await check
        assert (verified.records, verified.head) == (house.runtime.state.seq, house.runtime.state.head)
        assert verified.problems == []
    assert len(runs) == 1


async def test_what_a_trial_printed(house: House, tmp_path: Path) -> None:
    client = await house.client()
    folder = next(path for path in (house.root / "trials").iterdir())
    log = folder / "stdout.log"
    log.write_bytes(b"".join(b"line %d\n" % n for n in range(100_000)) + b"\xff\x1b[2J end")
    text = await ask(client, "output", folder.name, str, limit=3)
    assert text == "line 99998\nline 99999\n\ufffd\x1b[2J end"
    text = await ask(client, "output", folder.name, str, limit=10**9)
    assert len(text) <= 200_000
    assert text.startswith("line ")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    log.unlink()
    log.symlink_to(secret)
    assert not (await client.query("output", folder.name)).ok
    log.unlink()
    os.mkfifo(log)
    assert not (await client.query("output", folder.name)).ok
    (house.root / "trials" / "away").symlink_to(tmp_path)
    (tmp_path / "stdout.log").write_text("secret")
    assert not (await client.query("output", "away")).ok


async def test_what_the_run_knows(house: House) -> None:
    client = await house.client()
    everything = await ask(client, "cognition", kind=list[protocol.Knowledge])
    learned = [known for known in everything if known.source.startswith("lesson: ")]
    assert everything[: len(learned)] == learned
    assert all(known.source.startswith("paper: ") for known in everything[len(learned) :])
    assert [known.id for known in learned] == sorted((known.id for known in learned), reverse=True)
    assert learned[0].text == f"lesson of {learned[0].id.partition('/')[0]}"
    assert (await ask(client, "cognition", kind=list[protocol.Knowledge], offset=1, limit=2)) == everything[1:3]
    wanted = learned[-1]
    found = await ask(client, "cognition", kind=list[protocol.Knowledge], where=wanted.text)
    assert found[0].id == wanted.id
    assert "words" in found[0].why
    far = await ask(client, "cognition", kind=list[protocol.Knowledge], where="\x00 zzzz qqqq")
    assert all("words" not in known.why for known in far)


async def test_a_transcript_is_whole_also_for_what_the_state_let_go(house: House) -> None:
    client = await house.client()
    before = await ask(client, "transcript", "e0002", list[protocol.TranscriptEntry])
    assert [entry.role for entry in before][:2] == ["researcher", "engineer"]
    assert before[0].text.startswith("reply c")
    house.runtime.state.calls.clear()
    assert await ask(client, "transcript", "e0002", list[protocol.TranscriptEntry]) == before
    assert await ask(client, "transcript", "e0002", list[protocol.TranscriptEntry], limit=1) == before[-1:]
    assert await ask(client, "transcript", "e0002", list[protocol.TranscriptEntry], limit=1, offset=1) == before[-2:-1]
    assert await ask(client, "transcript", "nobody", list[protocol.TranscriptEntry]) == []


async def test_asking_once(house: House) -> None:
    answer = await ask_once(house.root, "sql", query=True, target="SELECT 41 + 1", limit=5)
    assert msgspec.json.decode(answer.text, type=protocol.Table).rows == [["42"]]
    assert (await ask_once(house.root, "present", who="ada")).ok


async def test_a_projection_behind_the_journal_is_brought_up(tmp_path: Path) -> None:
    root = history.write_run(tmp_path / "run", 20, seed=5)
    RunPaths(root).create()
    projection.open_in_step(root)[0].close()
    house = House(root)
    for number in range(3):
        house.runtime.note(f"early {number}")
    await house.runtime.flush()
    early = await house.commands.handle(protocol.Query(1, "leaderboard"))
    assert "not open yet" in early.error
    await house.runtime.open_projection()
    house.runtime.note("late")
    await house.runtime.flush()
    assert house.runtime.projection.seq == house.runtime.state.seq
    assert house.runtime.projection.head == house.runtime.state.head
    await house.runtime.close()
