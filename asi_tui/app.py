"""The terminal app: one model, one connection, one flush timer, and the screens.

Messages change the model as they come; five times a second the screen in front is drawn if something changed and the
terminal has taken what was written before. Leaving detaches: the engine goes on.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import time
from collections import deque
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

from rich.console import RenderableType
from textual.binding import Binding, BindingType
from textual.driver import Driver
from textual.filter import LineFilter, Monochrome
from textual.screen import Screen

from asi_tui import outside
from asi_tui.aftermath import last_words, leave_dead_terminal
from asi_tui.alerts import sequence
from asi_tui.commands.common import login, terminal
from asi_tui.driver import StopDriver
from asi_tui.facts import Lookout
from asi_tui.library import Library
from asi_tui.lines import tight
from asi_tui.model import Model
from asi_tui.orders import Line, OrdersApp
from asi_tui.pace import Pace
from asi_tui.preferences import Preferences, load_preferences, preferences_problem
from asi_tui.safe import AsciiFilter, ColourlessFilter, ControlFilter
from asi_tui.screens.approvals import ApprovalsScreen
from asi_tui.screens.audit import AuditScreen
from asi_tui.screens.base import Watch
from asi_tui.screens.brief import BriefScreen
from asi_tui.screens.experiment import ExperimentScreen
from asi_tui.screens.help import HelpScreen
from asi_tui.screens.keys import Key
from asi_tui.screens.knowledge import KnowledgeScreen
from asi_tui.screens.leaderboard import LeaderboardScreen
from asi_tui.screens.lineage import LineageScreen
from asi_tui.screens.mission import MissionScreen
from asi_tui.screens.palette import PaletteScreen
from asi_tui.screens.scaling import ScalingScreen
from asi_tui.screens.stopping import StopScreen
from asi_tui.screens.training import TrainingScreen
from asi_tui.screens.transcripts import TranscriptsScreen
from asi_tui.seen import leave
from asi_tui.stop import STOP_KEYS, EmergencyStop
from asi_tui.terminals import in_browser, needs_ascii
from asi_tui.theme import TEXTUAL_THEMES, THEMES
from asi_tui.wordline import command_question
from engine.client.connection import Connection
from engine.client.rundir import RunPaths
from store.config import ConfigError, RunConfig, load

FLUSH_SECONDS = 0.2
AGES_SECONDS = 1.0
AGAIN_SECONDS = 0.02
LONGEST_WORK = 0.01
"""Seconds of taking messages, before keys get their turn."""

MOST_LINES = 100
"""Lines typed after `:` that are remembered."""

MOST_SCREENS = 12
"""Screens on top of each other, before the newest ones are given up for another."""

SCREENS: tuple[tuple[str, type[Watch]], ...] = (
    ("1", MissionScreen),
    ("2", ApprovalsScreen),
    ("3", TranscriptsScreen),
    ("4", TrainingScreen),
    ("5", LeaderboardScreen),
    ("6", LineageScreen),
    ("7", ScalingScreen),
    ("8", AuditScreen),
    ("9", KnowledgeScreen),
)


class AsiApp(OrdersApp):
    """Watches and steers one run."""

    ascii_terminal = False
    """The terminal can show nothing but ASCII, whatever is preferred."""

    CSS = "Screen { background: $background; }"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "detach", "leave", show=False, priority=True),
        Binding("ctrl+q", "detach", "leave", show=False, priority=True),
        # Where the driver is not ours (a test, another system) the stop keys still arrive the ordinary way.
        Binding(",".join(sorted(STOP_KEYS)), "emergency", "stop", show=False, priority=True),
    ]

    def __init__(
        self,
        root: Path,
        connection: Line,
        emergency: EmergencyStop | None = None,
        driver_class: type[Driver] | None = StopDriver,
        preferences: Preferences | None = None,
    ) -> None:
        super().__init__(connection, login(), Model(root.name), driver_class)
        self.root = root
        self.model.terminal = terminal()
        self.config = _configuration(root)
        self.emergency = emergency or EmergencyStop(root, f"person:{self.who}")
        self.library = Library(connection.query, self.start_worker, self._changed)
        self.typed_lines: deque[str] = deque(maxlen=MOST_LINES)
        self.lookout = Lookout(root)
        self.preferences = preferences or Preferences()
        self.animation_level = "none"
        self._drawn = (-1, 0.0)
        self._pace = Pace()
        self._watches = {shown: kind() for shown, kind in SCREENS}
        for theme in TEXTUAL_THEMES:
            self.register_theme(theme)
        self.palette = THEMES["plain"]
        self.choose_theme(self.preferences.theme)
        self._wall = ControlFilter()

    def get_line_filters(self) -> list[LineFilter]:
        """Textual's own filters, and the wall against control characters."""
        filters = list(super().get_line_filters())
        if self.no_color:  # Textual only makes colours grey; NO_COLOR asks for none
            filters = [*(one for one in filters if not isinstance(one, Monochrome)), ColourlessFilter()]
        ascii_only = [AsciiFilter()] if self.preferences.ascii or self.ascii_terminal else []
        return [*filters, self._wall, *ascii_only]

    def choose_theme(self, name: str) -> None:
        """Paint in the colours of a theme from now on; `NO_COLOR` has the last word."""
        plain = self.no_color or name not in THEMES
        self.palette = THEMES["plain" if plain else name]
        self.theme = "ansi-dark" if plain or name == "plain" else f"asi-{name}"
        if self.is_running:
            self.refresh(layout=True)

    async def on_mount(self) -> None:
        """Start to listen and to draw; mission control is what one sees first."""
        for shown, screen in self._watches.items():
            self.install_screen(screen, shown)
        await self.push_screen(self._watches["1"])
        self.emergency.on_change = self._changed
        self.start_worker(self._listen())
        self.lookout.start()
        if problem := preferences_problem():
            self.tell(f"{problem}; the defaults hold", bad=True)
        self.set_interval(FLUSH_SECONDS, self.flush_picture)

    def on_unmount(self) -> None:
        """Nothing is drawn any more; the next brief begins here."""
        self.lookout.stop()
        if self.model.ever_connected and self.model.replay is None:
            leave(self.root, self.model.clock())

    # --- data in ---------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        rested = time.monotonic()
        async for message in self.connection.messages():
            first = not self.model.known
            self.model.take(message)
            if first and self.model.known:
                self.flush_picture(awaited=True)
            if time.monotonic() - rested > LONGEST_WORK:  # what waits in the socket would keep the keys waiting
                await asyncio.sleep(0)
                rested = time.monotonic()

    def _changed(self) -> None:
        self.model.version += 1

    # --- picture out -----------------------------------------------------------------------------------------------

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        """Let Textual write only the cells that changed, not the whole lines that they are in."""
        canvas = self.front.canvas if self.front is not None else None
        super()._display(screen, renderable if canvas is None else tight(renderable, canvas))

    def flush_picture(self, awaited: bool = False) -> None:
        """Draw the screen in front when something changed and the terminal has taken the last picture.

        awaited: somebody waits for this one, so that it is not held back to spare the line.
        """
        driver = self._driver
        if isinstance(driver, StopDriver):
            if driver.gone:
                leave_dead_terminal(self.emergency)
            if awaited and driver.backlog:
                self.set_timer(AGAIN_SECONDS, functools.partial(self.flush_picture, True))
            if driver.backlog or not (awaited or self._pace.allows(driver.outlet)):
                return
        self.model.see(self.lookout.facts)
        self._show_stop()
        rings = self.presence.rings(self.model.deadman_left)
        if (self.model.alarms.rings() and self.preferences.bell) or rings:
            self.bell()
        for found in self.model.alerts.due(time.monotonic()):
            self._alert(f"asi: {self.model.name}", found.text)
        version, when = self._drawn
        now = time.monotonic()
        screen = self.front
        if screen is not None and (version != self.model.version or now - when >= AGES_SECONDS):
            self._drawn = (self.model.version, now)
            screen.draw()

    def _alert(self, title: str, text: str) -> None:
        """A desktop notification, where the terminal is known to show them."""
        told = sequence(title, text, self.preferences.alerts, os.environ)
        if told and self._driver is not None and self.model.replay is None:
            self._driver.write(told)

    def _show_stop(self) -> None:
        screen = self.front
        if self.emergency.pressed and screen is not None and not isinstance(screen, StopScreen):
            screen.question = None  # what was asked before an emergency must not be answered after it by mistake
            self.push_screen(StopScreen())

    # --- keys ------------------------------------------------------------------------------------------------------

    def screen_keys(self) -> list[Key]:
        """One key for each numbered screen."""
        return [
            Key((shown,), shown, kind.NAME, kind.NAME.lower(), lambda shown=shown: self.go(shown))  # type: ignore[misc]
            for shown, kind in SCREENS
        ]

    def screen_forms(self) -> list[list[Key]]:
        """The numbered screens for footers, from long to short."""
        keys = self.screen_keys()
        short = [key._replace(word=kind.SHORT) for key, (_, kind) in zip(keys, SCREENS, strict=True)]
        return [keys, short, [Key(("1",), f"1-{len(keys)}", "screens", "", lambda: None, click=False)]]

    def shared_keys(self) -> list[Key]:
        """What can be pressed on every screen."""
        keys = [
            Key(("b",), "b", "brief", "the morning brief: what needs you, what changed, what comes", self.brief, False),
            Key((":",), ":", "command", "the words of the shell command, typed here", self.ask_command, False),
            Key(("ctrl+p",), "^P", "all", "everything that can be done, by name", self.show_palette, False),
            Key(("y",), "y", "copy", "copy this text to the clipboard and to a file", self.copy_screen, False),
            Key(("ctrl+l",), "^L", "redraw", "paint the whole screen again", self.repaint, False),
            Key(("?",), "?", "help", "the keys of this screen", self._help),
        ]
        if self.model.replay is not None:
            return [*self.model.replay.keys(), *keys, Key(("q",), "q", "leave", "leave the replay", self.action_detach)]
        phase, latched = self.model.state.phase, self.model.facts.latched
        if self.model.connected and latched:
            keys.insert(0, Key(("R",), "R", "re-arm", "say why, then a drill; then p resumes", self.ask_rearm))
        elif self.model.connected and phase in ("paused", "frozen", "parked"):
            keys.insert(0, Key(("p",), "p", "resume", "work goes on", lambda: self.order("resume")))
        elif self.model.connected and phase in ("running", "armed"):
            keys.insert(0, Key(("p",), "p", "pause", "nothing new starts, running trials finish", self.pause))
        if self.model.connected and self.model.known:
            keys.append(Key(("S",), "S", "stop", "stop the run in order (asks)", self.ask_stop, False))
        keys.append(Key(("q",), "q", "leave", "leave; the run goes on (also Ctrl+C)", self.action_detach))
        return keys

    def go(self, shown: str) -> Watch:
        """Change to a numbered screen."""
        target = self._watches[shown]
        if self.screen is not target:
            while len(self.screen_stack) > 2:  # the app's empty screen, a numbered one, and what was opened from it
                self.pop_screen()
            if self.screen is not target:
                self.switch_screen(target)
        return target

    def open(self, target: str) -> None:
        """Go to what a name stands for: a request, an experiment, one of its trials; nothing else is opened."""
        state = self.model.state
        if target in state.requests:
            screen = self.go("2")
            assert isinstance(screen, ApprovalsScreen)
            screen.choose(target)
        elif target in state.trials and target not in state.experiments:
            screen = self.go("4")
            assert isinstance(screen, TrainingScreen)
            screen.choose(target)
        elif target in state.experiments:
            while len(self.screen_stack) > MOST_SCREENS:
                self.pop_screen()
            self.push_screen(ExperimentScreen(target))
        elif target:
            self.tell(f"nothing here is called {target[:40]!r}", bad=True)

    def read(self, experiment: str, block: str = "") -> None:
        """Show what the agents said for an experiment, from one block on where that is named."""
        screen = self.go("3")
        assert isinstance(screen, TranscriptsScreen)
        screen.choose(experiment, block)

    def brief(self) -> None:
        """Show the morning brief."""
        self.push_screen(BriefScreen())

    def show_palette(self) -> None:
        """Everything that can be done, by name."""
        screen = self.front
        if screen is not None:
            self.push_screen(PaletteScreen(screen.all_keys()))

    def ask_command(self) -> None:
        """A line of the shell command's words."""
        screen = self.front
        if screen is not None:
            screen.put(command_question(self))

    def copy_screen(self) -> None:
        """Copy what the screen in front has to give."""
        screen = self.front
        if screen is not None:
            self.start_worker(outside.copy(self, screen.copied()))

    def repaint(self) -> None:
        """Paint everything again: another program may have written over it."""
        self.refresh(repaint=True, layout=True)

    def _help(self) -> None:
        screen = self.front
        if screen is not None:
            self.push_screen(HelpScreen(screen.NAME, screen.all_keys()))

    def action_detach(self) -> None:
        """Leave the terminal; the engine goes on."""
        self.exit()

    def action_emergency(self) -> None:
        """The stop key, where it was not taken on the input thread."""
        self.emergency.press()


def _configuration(root: Path) -> RunConfig:
    """The run's caps and targets; a file that cannot be read is the engine's business and changes nothing here."""
    try:
        return load(RunPaths(root).config)
    except (ConfigError, OSError):
        return RunConfig()


def web_or_stop_driver() -> type[Driver] | None:
    """The driver with the stop key on its input thread; in a browser, the one that the web server asks for."""
    return None if in_browser() else StopDriver


def run_app(root: Path, app: AsiApp | None = None) -> int:
    """Attach to a run (or show `app`) until the person leaves; 5 when the emergency stop was pressed here, else 0.

    No signal takes a stop back that counts down, not even after the app has given the terminal back: SIGHUP (the window
    closes) and SIGTERM finish it at once, and the keys that interrupt, dump or suspend other programs do nothing.
    """
    if app is None:
        line = Connection(root, who=login(), terminal=terminal())
        app = AsiApp(root, line, driver_class=web_or_stop_driver(), preferences=load_preferences())
    app.ascii_terminal = needs_ascii()
    button = app.emergency

    def finish(_number: int, _frame: FrameType | None) -> None:
        leave_dead_terminal(button)

    handlers: dict[int, Any] = {
        signal.SIGHUP: finish, signal.SIGTERM: finish,
        signal.SIGINT: signal.SIG_IGN, signal.SIGQUIT: signal.SIG_IGN,
    }  # fmt: skip
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        app.run(mouse=app.preferences.mouse)
    finally:
        # Not earlier: Textual sets a handler of its own, which suspends. What is suspended kills nothing.
        previous[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
        code = last_words(app.emergency)
        for number, handler in previous.items():
            signal.signal(number, handler)
    return code
