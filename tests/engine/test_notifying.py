"""Messages to people who do not look: what they hold, how often they come, and when they do not."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.client.notices import notice
from engine.notifying import Notifier, NotifyProblem, main, notifier, read_urls, sender
from store import events as ev
from store.config import ConfigError, Notify, RunConfig, dump, parse
from store.policy_rules import within
from store.state import RunState
from tests.store import history

NASTY = "\x1b]52;c;ZXZpbA==\x07 import os # s3cret-token"


@contextlib.contextmanager
def mailbox() -> Iterator[tuple[str, list[dict]]]:
    """A web server of our own, which apprise posts to."""
    received: list[dict] = []

    class Box(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Box)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"json://127.0.0.1:{server.server_port}/", received
    finally:
        server.shutdown()
        server.server_close()


def urls_file(folder: Path, url: str) -> Path:
    path = folder / "urls"
    path.write_text(f"# where to\n{url}\n")
    path.chmod(0o600)
    return path


def record(event: ev.Event) -> ev.Record:
    return history.seal_record(1, 0.0, "engine", event, "")[0]


async def test_real_messages_arrive_at_most_one_of_a_kind(tmp_path: Path) -> None:
    with mailbox() as (url, received):
        made = notifier(Notify(urls_file=str(urls_file(tmp_path, url)), every_seconds=60.0), "night", print)
        assert made is not None
        sending = asyncio.create_task(made.run())
        state = RunState()
        for number in range(5):
            event = ev.ApprovalRequested(f"R{number}", "e1", "p" * 64, "probe", NASTY, 1e10, reason=NASTY)
            made.take([record(event)], state)
        made.take([record(ev.TrialAnomaly("e1-s0", "e1", NASTY, NASTY))], state)
        async with asyncio.timeout(20):
            while len(received) < 2:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)
        sending.cancel()
    assert [one["title"] for one in received] == ["asi: night"] * 2
    assert received[0]["message"].startswith("R0 waits")
    assert received[1]["message"] == "trial e1-s0 was stopped by the watch"
    assert not any(part in json.dumps(received) for part in ("import os", "s3cret", "\\u001b"))


def test_what_was_held_back_is_counted_and_quiet_hours_are_kept() -> None:
    sent: list[str] = []
    made = Notifier("r", Notify(urls_file="x", every_seconds=10), lambda _, text: not sent.append(text), print)
    asked = notice(ev.ApprovalRequested("R1", "e1", "p", "probe", "", 0.0), RunState())
    killed = notice(ev.RunKilled("ada", 0.0), RunState())
    assert asked is not None
    assert killed is not None
    for moment in (100.0, 101.0, 105.0, 111.0):
        made._offer(asked, moment)
    told = [made._queue.get_nowait().text for _ in range(made._queue.qsize())]
    assert len(told) == 2
    assert told[1].endswith("(and 2 before it)")
    noon, night = (time.mktime((2026, 5, 4, hour, 30, 0, 0, 0, -1)) for hour in (12, 23))
    quiet = Notify(quiet_hours="22:00-07:00")
    assert (within(quiet.quiet_hours, noon), within(quiet.quiet_hours, night)) == (False, True)
    with pytest.raises(ConfigError, match=r"2:\d+: notify.quiet_hours: must be a time of day"):
        parse('[notify]\nquiet_hours = "25:00-07:00"\n')
    with pytest.raises(ConfigError, match="no time at all"):
        parse('[notify]\nquiet_hours = "07:00-07:00"\n')
    asleep = Notifier("r", quiet, lambda *_: True, print)
    asleep._offer(asked, night)
    assert asleep._queue.qsize() == 0
    asleep._offer(killed, night)
    assert asleep._queue.qsize() == 1


def test_bad_files_and_urls_are_refused_without_showing_them(tmp_path: Path) -> None:
    path = urls_file(tmp_path, "json://user:hunter2@localhost/")
    assert read_urls(path) == ["json://user:hunter2@localhost/"]
    path.chmod(0o644)
    with pytest.raises(NotifyProblem, match="chmod 600"):
        read_urls(path)
    with pytest.raises(NotifyProblem, match="No such file"):
        read_urls(tmp_path / "none")
    with pytest.raises(NotifyProblem, match="URL 2 is none") as wrong:
        sender(["json://localhost/", "hunter2"])
    assert "hunter2" not in str(wrong.value)


def test_a_kill_is_told_of_although_no_engine_is_left(tmp_path: Path) -> None:
    with mailbox() as (url, received):
        path = urls_file(tmp_path, url)
        (tmp_path / "run.toml").write_text(dump(RunConfig(name="r", notify=Notify(urls_file=str(path)))))
        assert main([str(tmp_path)]) == 0
        assert received == []
        from engine.client.records import write_latch

        write_latch(tmp_path, "ada", NASTY)
        assert main([str(tmp_path)]) == 0
    assert [one["message"] for one in received] == ["the run was killed; it starts again after asi rearm"]
