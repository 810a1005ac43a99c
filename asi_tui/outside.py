"""What leaves the app: the clipboard, the pager, the editor.

A program that is lent the terminal takes the keys too, and our input thread sees none of them. So for that time the
terminal's own quit key stands in for it: Ctrl+\\ makes the kernel send SIGQUIT to everything in the foreground, which
presses the emergency stop and ends the program, so that the stop screen comes up.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import shlex
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import SuspendNotSupported
from textual.driver import Driver

from asi_tui import words
from asi_tui.driver import StopDriver
from asi_tui.lent import Lent, NotStarted
from asi_tui.safe import clean, clean_lines

if TYPE_CHECKING:
    from asi_tui.app import AsiApp

LONGEST_OSC = 74_000
"""Encoded bytes that a terminal is sure to take in one sequence; longer ones many of them cut or drop."""

MOST_PAGED = 64_000_000
LONGEST_PAGED_LINE = 1_000_000
MOST_EDITED = 8_000_000

PLAIN_PAGERS = frozenset({"less", "more", "most"})
"""Pagers that leave the terminal's quit key alone."""


def copy_path() -> Path:
    """Where the text that was copied last stands as a file."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "asi" / "copy"


def _write_private(path: Path, text: str) -> None:
    """Write a file for nobody else to read, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=".copy-", dir=path.parent)  # 0600 from the beginning
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _encoded(text: str) -> str:
    """The text as OSC 52 carries it; empty where it is too long for that."""
    if len(text) > LONGEST_OSC:
        return ""
    encoded = base64.b64encode(text.encode("utf-8", "replace")).decode("ascii")
    return encoded if len(encoded) <= LONGEST_OSC else ""


async def copy(app: AsiApp, text: str) -> None:
    """Copy text to the clipboard over OSC 52, and to a file for terminals that do not pass it on."""
    if not text:
        app.tell("nothing to copy", bad=True)
        return
    path, problem = copy_path(), ""
    try:
        await asyncio.to_thread(_write_private, path, text)
    except OSError as error:
        problem = f"{path} was not written: {error.strerror or error}"
    lines = words.plural(text.count("\n") + (not text.endswith("\n")), "line")
    encoded = _encoded(text)
    if encoded and app._driver is not None:
        app._clipboard = text
        app._driver.write(f"\x1b]52;c;{encoded}\a")
        app.tell(f"copied {lines}; {problem or f'also in {path}'}", bool(problem))
    elif problem:
        app.tell(f"not copied: too long for the clipboard, and {problem}", bad=True)
    else:
        app.tell(f"too long for the clipboard: {lines} are in {path}")


async def page(app: AsiApp, text: str, name: str) -> None:
    """Show a text in `$PAGER`, cleaned: no byte of it can reach the terminal as a command."""
    command = _command(("PAGER",), "less")
    inert = await asyncio.to_thread(_inert, text)
    await _lend(app, command, inert, f"{name}.txt", Path(command[0]).name not in PLAIN_PAGERS)


async def edit(app: AsiApp, text: str, suffix: str = ".py") -> str | None:
    """The text as the person has changed it in `$VISUAL` or `$EDITOR`; None where it was left as it is, or failed."""
    changed = await _lend(app, _command(("VISUAL", "EDITOR"), "vi"), text, f"text{suffix}", True)
    if changed == text:
        app.tell("nothing was changed")
        return None
    return changed


def _command(names: tuple[str, ...], default: str) -> list[str]:
    """The words of a program that the person chose in the environment."""
    for name in names:
        with contextlib.suppress(ValueError):
            if chosen := shlex.split(os.environ.get(name, "")):
                return chosen
    return [default]


def _inert(text: str) -> str:
    return "\n".join(clean_lines(text, MOST_PAGED, LONGEST_PAGED_LINE))


async def _lend(app: AsiApp, command: list[str], text: str, name: str, warn: bool) -> str | None:
    """Lend the terminal to a program with the text in a file; what the file holds afterwards, None where it failed."""
    if app.emergency.pressed:
        app.tell("not during an emergency stop", bad=True)
        return None
    folder = ""
    try:
        folder, path = await asyncio.to_thread(_put_down, text, name)
        code = await _lend_terminal(app, [*command, str(path)], warn)
        if code:
            app.tell(f"{command[0]} ended with {_ending(code)}", bad=True)
            return None
        return await asyncio.to_thread(_pick_up, path)
    except SuspendNotSupported:
        app.tell("this terminal cannot be lent to another program", bad=True)
    except NotStarted as error:
        app.tell(f"{clean(command[0], 80)} could not be started: {error}", bad=True)
    except OSError as error:
        app.tell(f"no file for {clean(command[0], 80)}: {error.strerror or error}", bad=True)
    finally:
        if folder:
            await asyncio.to_thread(shutil.rmtree, folder, True)
    return None


def _ending(code: int) -> str:
    return f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"code {code}"


def _put_down(text: str, name: str) -> tuple[str, Path]:
    """The text as a file in a folder of its own: what an editor leaves beside it goes with it."""
    folder = tempfile.mkdtemp(prefix="asi-")  # 0700
    path = Path(folder) / "".join(c if c.isalnum() or c in "-._" else "_" for c in name)[-80:]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
        file.write(text)
    return folder, path


def _pick_up(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(MOST_EDITED)


async def _lend_terminal(app: AsiApp, command: list[str], warn: bool) -> int:
    """Run a program in the place of the app; the app's loop goes on folding messages and draws nothing."""
    lent = Lent(command, app.emergency.press)
    driver = app._driver
    if driver is None or not driver.can_suspend:
        raise SuspendNotSupported
    problem: BaseException | None = None
    code = 0
    with lent.signals(), app.suspend():
        _away(driver, True)
        try:
            if warn:
                print(f"Ctrl+\\ stops the run here too, unless {Path(command[0]).name} takes it for itself; then: "
                      f"asi kill {clean(app.root.name, 60)} in another shell.", flush=True)  # fmt: skip
            code = await asyncio.to_thread(lent.run)
        except BaseException as error:  # an error that left `suspend` would leave the app suspended
            problem = error
            lent.end()
        finally:
            _away(driver, False)
    app.repaint()
    if problem is not None:
        raise problem
    return code


def _away(driver: Driver, away: bool) -> None:
    if isinstance(driver, StopDriver):
        driver.away = away
