"""One picture of the app, without a terminal: what a person would see, as an SVG file."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from rich.terminal_theme import SVG_EXPORT_THEME
from textual.theme import Theme

from asi_tui.app import SCREENS, AsiApp
from asi_tui.preferences import Preferences, ThemeName
from asi_tui.stop import EmergencyStop
from engine.client.connection import Connection

SETTLE_SECONDS = 0.6
"""Nothing may have been fetched for so long before the picture is taken."""

PATIENCE = 30.0


class NoPicture(Exception):
    """There is nothing to be seen; one line."""


class NoButton(EmergencyStop):
    """Nobody presses anything while a picture is taken."""

    def press(self) -> None:
        """Not here."""


def live_app(root: Path, theme: ThemeName) -> AsiApp:
    """The app on a running engine, only looking."""
    line = Connection(root, terminal="a picture")
    return AsiApp(root, line, NoButton(root, "nobody"), preferences=Preferences(theme=theme))


def replayed_app(root: Path, theme: ThemeName, at: str) -> AsiApp:
    """The app on the record of a run, standing still at a place."""
    from asi_tui.replay.opened import ReplayApp

    app = ReplayApp(root, at=at or "end", preferences=Preferences(theme=theme))
    app.line.player.playing = False
    return app


def names() -> dict[str, str]:
    """What the numbered screens may be called, and their keys."""
    known = {kind.NAME.lower().replace(" ", "-"): shown for shown, kind in SCREENS}
    return {**known, **{shown: shown for shown, _ in SCREENS}, "mission": "1"}


async def take(app: AsiApp, screen: str, size: tuple[int, int]) -> str:
    """The SVG of one screen (a number, a name, `brief`, or an experiment). Raises `NoPicture`."""
    async with app.run_test(size=size) as pilot:
        await _settled(app, lambda: app.model.known)
        if not app.model.known:
            raise NoPicture(app.model.lost_reason or "no state came within half a minute")
        known = names()
        if screen in known:
            app.go(known[screen])
        elif screen == "brief":
            app.brief()
        elif screen in app.model.state.experiments or screen in app.model.state.trials:
            app.open(screen)
        else:
            raise NoPicture(f"{screen[:40]!r} is no screen ({', '.join(known)}, brief) and no experiment of this run")
        await pilot.pause()
        await _settled(app, lambda: True)
        if app.front is not None:
            app.front.draw()
        await pilot.pause()
        return _on_paper(app.export_screenshot(title=f"asi  {app.model.name}"), app.current_theme)


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _on_paper(svg: str, theme: Theme) -> str:
    """The picture on the theme's own background: the app leaves that to the terminal, and a file has none."""
    for old, new in ((SVG_EXPORT_THEME.background_color, theme.background),
                     (SVG_EXPORT_THEME.foreground_color, theme.foreground)):  # fmt: skip
        svg = svg.replace(_hex(old), new or _hex(old))
    return svg


async def _settled(app: AsiApp, ready: Callable[[], bool]) -> None:
    """Wait until there is something to be seen and nothing more has been on its way for a while."""
    until = time.monotonic() + PATIENCE
    calm = time.monotonic()
    while time.monotonic() < until:
        if not ready() or app.library.busy or not _standing(app):
            calm = time.monotonic()
        elif time.monotonic() - calm > SETTLE_SECONDS:
            return
        await asyncio.sleep(0.05)


def _standing(app: AsiApp) -> bool:
    """A replay has arrived where it was sent."""
    line = getattr(app, "line", None)
    return line is None or line.arrived
