"""The words of the shell command, typed into the app after `:`, and a few that only the app has.

What the app can show or order by itself it does at once; every other word of the shell command runs as a program of
its own, with what it prints on a screen. Usage is checked by the shell command's own parser, so a mistake reads the
same in both places.
"""

from __future__ import annotations

import argparse
import asyncio
import difflib
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from asi_tui import completion
from asi_tui.arguments import parser
from asi_tui.preferences import Preferences, save_preferences
from asi_tui.screens.audit import AuditScreen
from asi_tui.screens.keys import Question
from asi_tui.screens.output import OutputScreen
from asi_tui.theme import THEMES

if TYPE_CHECKING:
    from asi_tui.app import AsiApp

MOST_PROGRAM = 1 << 20
"""Bytes of a proposed program."""
MOST_NAME = 1_000
"""Characters of a file's name."""

ELSEWHERE = ("run", "attach", "watch", "replay")
"""Words that need a terminal of their own."""

REASONS = {"pause": 2, "freeze": 2, "park": 2, "rearm": 1}
"""Words after which so many others, or more, are the reason where none is an option; one alone may name a run."""


class Refused(Exception):
    """The line cannot be carried out; one clear line."""


class HelpAsked(Exception):
    """Somebody asked how a word is used."""


class Words(argparse.ArgumentParser):
    """The shell command's parser without a shell: nothing is printed and nothing ends."""

    def error(self, message: str) -> NoReturn:
        """A mistake in the line."""
        raise Refused(f"{self.prog.removeprefix('asi ')}: {message}")

    def print_help(self, file: Any = None) -> None:
        """How the word is used."""
        raise HelpAsked(self.format_help())


def command_question(app: AsiApp) -> Question:
    """The question that takes a line: with completion, history, and the words that fit above it."""
    return Question(
        ":",
        lambda typed: run_line(app, typed),
        rows=lambda width, height: completion.rows(app, width) if height > 4 else [],
        completes=lambda typed: completion.complete(app, typed),
        history=tuple(app.typed_lines),
    )


def run_line(app: AsiApp, text: str) -> None:
    """Carry out one line."""
    text = text.strip()
    if not text:
        return
    if not app.typed_lines or app.typed_lines[-1] != text:
        app.typed_lines.append(text)
    try:
        _run(app, text)
    except Refused as refused:
        app.tell(str(refused), bad=True)
    except HelpAsked as asked:
        app.push_screen(OutputScreen(text, text=str(asked)))


def _run(app: AsiApp, text: str) -> None:
    try:
        line = shlex.split(text)
    except ValueError as error:
        raise Refused(f"{error}: quotes come in pairs") from None
    word, rest = line[0], line[1:]
    known = completion.SHELL | completion.OWN.keys()
    state = app.model.state
    if word in OWN:
        OWN[word](app, rest)
    elif word in completion.SHELL:
        _shell_word(app, word, rest)
    elif not rest and len(word) == 1 and word in "123456789":
        app.go(word)
    elif not rest and (word in state.experiments or word in state.requests or word in state.trials):
        app.open(word)
    else:
        near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "Tab lists the words, ? the keys"
        raise Refused(f"unknown word {word[:40]!r}; {hint}")


# --- the shell command's words ---------------------------------------------------------------------------------------


def _shell_word(app: AsiApp, word: str, rest: list[str]) -> None:
    if word in ELSEWHERE:
        raise Refused(f"{word} needs a terminal of its own: leave with q, then asi {word}")
    if len(rest) >= REASONS.get(word, 10**6) and not _has_option(rest):
        rest = ["--reason", " ".join(rest)]
    elif word == "reject" and len(rest) > 1 and not _has_option(rest):
        rest = [rest[0], "--reason", " ".join(rest[1:])]
    options = parser(Words).parse_args([word, *rest])
    _same_run(app, options)
    handle = HANDLERS.get(word)
    told = getattr(options, "json", False) or getattr(options, "csv", False) or (word == "audit" and _narrowed(options))
    if handle is None or told:
        app.push_screen(OutputScreen(f"asi {word} {' '.join(rest)}".strip(), _command(app, word, rest)))
    else:
        handle(app, options)


def _narrowed(options: argparse.Namespace) -> bool:
    """Whether only some records are asked for, or anchors: the shell's command tells those."""
    return any(getattr(options, name) for name in ("kind", "who", "experiment", "since", "until", "last", "anchor"))


def _has_option(rest: Sequence[str]) -> bool:
    return any(part.startswith("-") for part in rest)


def _same_run(app: AsiApp, options: argparse.Namespace) -> None:
    """This terminal supervises one run; a line that names another one is a mistake that must not pass."""
    named = getattr(options, "run", None)
    if named is not None and named != app.root.name and os.path.abspath(named) != os.path.abspath(app.root):
        raise Refused(f"this terminal is on {app.root.name}, not on {named[:60]!r}; use a shell for other runs")


def _command(app: AsiApp, word: str, rest: list[str]) -> list[str]:
    """The program for a word, about the run that is on the screen and not the latest one."""
    line, root = [word, *rest], os.path.abspath(app.root)
    if word != "drill":  # which makes a place of its own
        for more in ([root], ["--run", root]):
            try:
                if getattr(parser(Words).parse_args([*line, *more]), "run", None) == root:
                    line += more
                    break
            except Refused:
                continue
    return [sys.executable, "-m", "asi_tui.main", *line]


def _order(app: AsiApp, options: argparse.Namespace) -> None:
    reason = getattr(options, "reason", None) or ""
    app.order(options.command, **({"reason": reason} if reason else {}))


def _rearm(app: AsiApp, options: argparse.Namespace) -> None:
    if not options.reason.strip():
        raise Refused("rearm: say why it is safe again: rearm REASON")
    app.order("rearm", reason=options.reason)


def _end(app: AsiApp, options: argparse.Namespace) -> None:
    trial = app.model.state.trials.get(options.trial)
    if trial is None:
        raise Refused(f"no trial {options.trial[:60]!r}; Tab completes those that run")
    app.order("end", target=trial.id, reason=options.reason or "")


def _requests(app: AsiApp, names: Sequence[str]) -> list[tuple[str, str]]:
    """The requests that are meant, as ids with the programs that they are for. Raises `Refused`."""
    pending = app.model.state.pending
    found = []
    for name in names:
        request = next((one for one in pending if name in (one.id, one.experiment)), None)
        if request is None:
            raise Refused(f"no request {name[:60]!r} waits; 2 shows those that do")
        found.append((request.id, request.program))
    return found


def _decide(app: AsiApp, options: argparse.Namespace) -> None:
    requests = _requests(app, options.ids)
    if options.command == "approve":
        app.open(requests[0][0])
        app.tell("read it here, then a approves: nothing is approved by a line")
        return
    if options.command == "reject" and not options.reason:
        raise Refused("reject: a rejection needs a reason, it reaches the Researcher: reject ID REASON")
    for request, program in requests:
        app.order(options.command, target=request, program=program, reason=options.reason or "")


def _show(app: AsiApp, options: argparse.Namespace) -> None:
    if options.experiment not in app.model.state.experiments:
        raise Refused(f"no experiment {options.experiment[:60]!r}; 5 lists them")
    if options.command == "transcript":
        app.read(options.experiment)
    else:
        app.open(options.experiment)


def _screen(shown: str) -> Callable[[AsiApp, argparse.Namespace], None]:
    def go(app: AsiApp, _options: argparse.Namespace) -> None:
        app.go(shown)

    return go


def _audit(app: AsiApp, options: argparse.Namespace) -> None:
    screen = app.go("8")
    if options.verify and isinstance(screen, AuditScreen):
        screen.verify()


def _brief(app: AsiApp, options: argparse.Namespace) -> None:
    app.brief()
    if options.since is not None:
        app.call_later(_look_back, app, app.model.now - options.since)


def _look_back(app: AsiApp, since: float) -> None:
    from asi_tui.screens.brief import BriefScreen

    if isinstance(app.front, BriefScreen):
        app.front.look_back(since)


def _propose(app: AsiApp, options: argparse.Namespace) -> None:
    app.run_worker(_read_and_propose(app, options), exit_on_error=False)


async def _read_and_propose(app: AsiApp, options: argparse.Namespace) -> None:
    """Read the files in a thread, all of them before the first is handed over."""
    try:
        programs = [(name, await asyncio.to_thread(read_program, name)) for name in options.files]
    except (OSError, UnicodeDecodeError) as error:
        text = error.strerror if isinstance(error, OSError) else "not a text file"
        app.tell(f"propose: {getattr(error, 'filename', '') or 'a file'}: {text}", bad=True)
        return
    for name, source in programs:
        title = options.title or Path(name).stem.replace("_", " ")
        app.order("propose", program=source, title=title, reason=options.motivation or "")


def read_program(name: str) -> str:
    """The text of a program file; what is too large for a program is cut. Blocks."""
    path = Path(name).expanduser()
    if not path.is_file():  # a pipe would be waited for
        raise FileNotFoundError(2, "not a file", name)
    with open(path, "rb") as file:
        return file.read(MOST_PROGRAM).decode()


HANDLERS: dict[str, Callable[[AsiApp, argparse.Namespace], None]] = {
    "pause": _order, "freeze": _order, "park": _order, "resume": _order, "stop": _order,
    "rearm": _rearm, "end": _end, "approve": _decide, "reject": _decide, "defer": _decide,
    "show": _show, "transcript": _show, "propose": _propose,
    "status": _screen("1"), "approvals": _screen("2"), "leaderboard": _screen("5"),
    "audit": _audit, "brief": _brief,
}  # fmt: skip
"""Words that the app carries out by itself."""


# --- the app's own words ---------------------------------------------------------------------------------------------


def _set(app: AsiApp, rest: list[str]) -> None:
    """`set theme light`, `set ascii on`: from now on and for every run."""
    if len(rest) == 2 and rest[0] == "signing_key":
        _set_key(app, rest[1])
        return
    if len(rest) != 2 or rest[0] not in completion.SETTINGS:
        told = ", ".join(f"set {name} {'|'.join(values)}" for name, values in completion.SETTINGS.items())
        raise Refused(f"set what? {told}, set signing_key FILE")
    name, value = rest
    if value not in completion.SETTINGS[name]:
        raise Refused(f"set {name} is one of {', '.join(completion.SETTINGS[name])}")
    chosen: Any = value if name in ("theme", "alerts") else value == "on"
    app.preferences = msgspec.structs.replace(app.preferences, **{name: chosen})
    if name == "theme":
        assert value in THEMES
        app.choose_theme(value)
    app.repaint()
    app.run_worker(_save(app, app.preferences, f"{name} {value}"), exit_on_error=False)


def _set_key(app: AsiApp, name: str) -> None:
    """`set signing_key FILE`: an SSH key, or its public half where an agent has the other."""
    path = Path(name).expanduser()
    if not path.is_file() or len(name) > MOST_NAME:
        raise Refused(f"there is no key {name[:60]!r}; name the file of your SSH key")
    app.preferences = msgspec.structs.replace(app.preferences, signing_key=str(path.absolute()))
    app.run_worker(_save(app, app.preferences, f"signing_key {path.name}"), exit_on_error=False)


async def _save(app: AsiApp, preferences: Preferences, what: str) -> None:
    problem = await asyncio.to_thread(save_preferences, preferences)
    later = " from the next start on" if what.startswith("mouse") else ""
    app.tell(f"{what}{later}, but it is not saved: {problem}" if problem else f"{what}{later}; saved", bool(problem))


def _screenshot(app: AsiApp, rest: list[str]) -> None:
    """`screenshot [FILE]`: the screen in front as SVG."""
    if len(rest) > 1:
        raise Refused("screenshot: one file name, or none")
    name = rest[0] if rest else f"asi-{app.root.name}-{time.strftime('%Y%m%d-%H%M%S')}.svg"
    app.run_worker(_take_screenshot(app, Path(name).expanduser()), exit_on_error=False)


async def _take_screenshot(app: AsiApp, path: Path) -> None:
    if app.front is not None:
        app.front.draw()
    picture = app.export_screenshot(title=f"asi {app.root.name}")
    problem = await asyncio.to_thread(write_new, path, picture)
    app.tell(f"no screenshot: {problem}" if problem else f"screenshot in {path}", bool(problem))


def write_new(path: Path, text: str) -> str:
    """Write a file that does not exist yet, for nobody else to read; returns what went wrong. Blocks."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return f"{path} is there already"
    except OSError as error:
        return f"{path}: {error.strerror}"
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        return f"{path}: {error.strerror}"
    return ""


def _kill(app: AsiApp, rest: list[str]) -> None:
    """`kill`: the emergency stop of this run. Other words could mean another run, so there are none."""
    if rest not in ([], [app.root.name]):
        raise Refused(f"kill alone presses the emergency stop of {app.root.name}; use a shell for other runs")
    app.emergency.press()


def _help(app: AsiApp, _rest: list[str]) -> None:
    key = next(key for key in app.shared_keys() if "?" in key.names)
    key.run()


OWN: dict[str, Callable[[AsiApp, list[str]], None]] = {
    "set": _set,
    "screenshot": _screenshot,
    "help": _help,
    "kill": _kill,
    "quit": lambda app, _rest: app.action_detach(),
    "q": lambda app, _rest: app.action_detach(),
}
"""Words that only the app has, or that do something else in it."""
