"""Messages to people who are not looking: what waits for them, and what went wrong, through `apprise`.

What a message may hold is said in `engine.client.notices`. At most one of a kind is sent in `[notify] every_seconds`;
the next one says how many were held back. In the quiet hours only an emergency stop is told.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from engine.client.notices import KILLED, Notice, notice
from engine.client.records import read_latch
from engine.client.rundir import RunPaths
from engine.private import NotPrivate, read_private
from store import events as ev
from store.config import ConfigError, Notify, load
from store.policy_rules import within
from store.state import RunState

MAX_BYTES = 64 * 1024
QUEUE = 100
URGENT = "kill"


class NotifyProblem(Exception):
    """Messages cannot be sent as configured; one line."""


def read_urls(path: Path) -> list[str]:
    """The apprise URLs of a file, one a line; they hold passwords, so nobody else may read it. Blocks.

    Raises:
        NotifyProblem: it cannot be read, or others can read it, or there is none in it.
    """
    try:
        lines = read_private(path, "notify.urls_file", "one URL a line", MAX_BYTES).splitlines()
    except NotPrivate as error:
        raise NotifyProblem(str(error)) from None
    urls = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not urls:
        raise NotifyProblem(f"notify.urls_file {path} holds no URL")
    return urls


def sender(urls: list[str]) -> Callable[[str, str], bool]:
    """A function that sends a title and a text and says whether that worked; it blocks.

    Raises:
        NotifyProblem: apprise is not installed, or does not know a URL.
    """
    try:
        import apprise
    except ImportError:
        raise NotifyProblem("notify.urls_file needs the extra `notify`: pip install 'asi[notify]'") from None
    services = []
    for number, url in enumerate(urls, start=1):
        service = apprise.Apprise.instantiate(url)
        if service is None:
            raise NotifyProblem(f"notify.urls_file: URL {number} is none that apprise knows")
        services.append(service)

    def send(title: str, text: str) -> bool:
        # One after another, each by itself: apprise's own way keeps threads that hold up the end of the process.
        return all([bool(service.notify(body=text, title=title)) for service in services])

    return send


class Notifier:
    """Sends messages from a thread, one after another; what cannot be sent is said once in the run itself.

    Args:
        run: the run's name, which is every message's title.
        config: quiet hours and rate.
        send: sends a title and a text; blocks.
        complain: is told, once, that a message could not be sent.
    """

    def __init__(
        self, run: str, config: Notify, send: Callable[[str, str], bool], complain: Callable[[str], None]
    ) -> None:
        self._title, self._config, self._send, self._complain = f"asi: {run}", config, send, complain
        self._queue: asyncio.Queue[Notice] = asyncio.Queue(QUEUE)
        self._last: dict[str, float] = {}
        self._held: dict[str, int] = {}
        self._failed = False

    def take(self, records: Iterable[ev.Record], state: RunState) -> None:
        """Look at records that are on disk; never waits."""
        for record in records:
            message = notice(record.data, state)
            if message is not None:
                self._offer(message, time.time())

    def _offer(self, message: Notice, now: float) -> None:
        quiet = message.kind != URGENT and bool(self._config.quiet_hours) and within(self._config.quiet_hours, now)
        early = now - self._last.get(message.kind, 0.0) < self._config.every_seconds
        if quiet or early or self._queue.full():
            self._held[message.kind] = self._held.get(message.kind, 0) + 1
            return
        self._last[message.kind] = now
        held = self._held.pop(message.kind, 0)
        self._queue.put_nowait(message._replace(text=message.text + (f" (and {held} before it)" if held else "")))

    async def run(self) -> None:
        """Send what was taken; to be cancelled."""
        while True:
            message = await self._queue.get()
            try:
                sent = await asyncio.to_thread(self._send, self._title, message.text)
            except Exception:  # a service is other people's code: whatever becomes of a message, the run goes on
                sent = False
            if not sent and not self._failed:
                self._failed = True
                self._complain("a message could not be sent; see [notify] urls_file. This is said once")


def notifier(config: Notify, run: str, complain: Callable[[str], None]) -> Notifier | None:
    """The run's notifier, None where none is configured. Blocks. Raises `NotifyProblem`."""
    if not config.urls_file:
        return None
    return Notifier(run, config, sender(read_urls(Path(config.urls_file))), complain)


def main(arguments: list[str] | None = None) -> int:
    """Tell of an emergency stop, for `asi kill`: the engine that would have done it is dead."""
    parser = argparse.ArgumentParser(prog="python -m engine.notifying")
    parser.add_argument("root", type=Path)
    paths = RunPaths(parser.parse_args(arguments).root)
    try:
        config = load(paths.config)
        if not config.notify.urls_file or read_latch(paths.root) is None:
            return 0
        send = sender(read_urls(Path(config.notify.urls_file)))
    except (ConfigError, NotifyProblem, OSError) as error:
        print(f"asi: nobody was told: {error}", file=sys.stderr)
        return 1
    return 0 if send(f"asi: {config.name}", KILLED) else 1


if __name__ == "__main__":
    sys.exit(main())
