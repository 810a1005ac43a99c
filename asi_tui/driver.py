"""The terminal driver with the stop key on its input thread.

A slow or stalled terminal blocks the app's event loop, and a key bound the normal way then never fires. So the stop
key is looked at where keys arrive, before the loop hears of them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TextIO, cast

from textual import events
from textual.app import App
from textual.drivers.linux_driver import LinuxDriver
from textual.message import Message

from asi_tui.pace import Outlet
from asi_tui.stop import HOLD_KEY, STOP_KEYS

if TYPE_CHECKING:
    from asi_tui.app import AsiApp


class StopDriver(LinuxDriver):
    """`LinuxDriver` that hands the stop keys to the app's `EmergencyStop` itself."""

    def __init__(self, app: App[Any], **options: Any) -> None:
        super().__init__(app, **options)
        self.outlet = Outlet(cast("TextIO", self._file))
        self._file = cast("Any", self.outlet)

    def process_message(self, message: Message) -> None:
        """Take the stop keys out of the stream; pass everything else on. Runs on the input thread."""
        if isinstance(message, events.Key):
            app = cast("AsiApp", self._app)
            emergency = app.emergency
            if message.key in STOP_KEYS or message.key in app.preferences.stop_keys:
                emergency.press()
                return
            if message.key == HOLD_KEY and emergency.phase in ("freezing", "frozen"):
                emergency.hold()
                return
        super().process_message(message)

    away = False
    """The terminal is lent to another program: whatever is drawn meanwhile is dropped."""

    def write(self, data: str) -> None:
        """Write, unless the terminal is lent: then nobody takes the writes, and the app would wait for that."""
        if not self.away:
            super().write(data)

    @property
    def backlog(self) -> int:
        """Writes that the terminal has not taken yet."""
        return 0 if self._writer_thread is None else self._writer_thread._queue.qsize()

    @property
    def gone(self) -> bool:
        """The terminal was closed under us."""
        return self.input_tty and not os.isatty(self.fileno)
