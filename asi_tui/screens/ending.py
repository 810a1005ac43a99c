"""Ending one trial: a code for each that runs, the question for one of them, and the list beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from asi_tui import words
from asi_tui.lines import Row, Span, clip, fit, row, rule
from asi_tui.model import Model
from asi_tui.screens.base import Watch
from asi_tui.screens.keys import Key, Question
from asi_tui.screens.parts import table
from asi_tui.screens.progress import progress

SHORTEST = 2
LONGEST = 64
LEFT_BESIDE = 4
"""Lines of its own that a screen keeps beside a list with one trial to a line."""

NOTHING = "nothing was ended"
PROMPT = "code and Enter:"


def trial_codes(trials: Iterable[str]) -> dict[str, str]:
    """A short code for each trial id: the first hex characters of its hash, as few as tell them all apart."""
    hashes = {trial: hashlib.sha256(trial.encode()).hexdigest() for trial in trials}
    length = next(
        (n for n in range(SHORTEST, LONGEST) if len({code[:n] for code in hashes.values()}) == len(hashes)), LONGEST
    )
    return {trial: code[:length] for trial, code in hashes.items()}


def end_key(screen: Watch, only: str = "") -> list[Key]:
    """The key that asks which trial to end, while there is one; `only` those of one experiment."""
    if not screen.model.commands or not _running(screen.model, only):
        return []
    return [Key(("X",), "X", "end trial", "end one running trial (asks for its code)", lambda: _ask(screen, only))]


def _running(model: Model, only: str) -> list[str]:
    trials = [trial for trial in model.state.running_trials if only in ("", trial.experiment)]
    return [trial.id for trial in sorted(trials, key=lambda trial: (trial.experiment, trial.seed))]


def _ask(screen: Watch, only: str) -> None:
    # The codes stay as they are while the question is open, whatever starts or ends meanwhile.
    codes = trial_codes(_running(screen.model, only))

    def answer(typed: str) -> None:
        trial = next((trial for trial, code in codes.items() if code == typed.lower()), None)
        if trial is None:
            said = f"no running trial has the code {typed!r}: " if typed else ""
            screen.say(said + NOTHING, bad=True)
        else:
            screen.asi.order("end", target=trial)

    listed = " · ".join(f"{code} {trial}" for trial, code in codes.items())
    screen.put(
        Question(
            f"End which trial? {listed} · {PROMPT}", answer, f"Which? {PROMPT}",
            lambda width, height: code_rows(screen.model, codes, width, height), NOTHING,
        )
    )  # fmt: skip


def code_rows(model: Model, codes: dict[str, str], width: int, height: int) -> list[Row]:
    """The codes beside their trials: one line each where there is room, several to a line where there is not."""
    if height < 2:
        return []
    head = rule("end which trial?", width, words.plural(len(codes), "running trial"))
    room = height - 1
    if len(codes) <= room - LEFT_BESIDE and width >= 50:
        return [head, *_full(model, codes, width)]
    cells = [f"{code} {trial}" for trial, code in codes.items()]
    cell = min(width - 2, max(map(len, cells)) + 2)
    columns = max(1, (width - 1) // cell)
    shown = cells if len(cells) <= columns * room else cells[: columns * (room - 1)]
    lines = [shown[index : index + columns] for index in range(0, len(shown), columns)]
    rows = [head, *(row((" " + "".join(fit(one, cell) for one in line), "strong")) for line in lines)]
    if len(cells) > len(shown):
        rows.append(row((f" and {len(cells) - len(shown)} more: `asi end TRIAL` ends each of them", "dim")))
    return [clip(line, width) for line in rows]


def _full(model: Model, codes: dict[str, str], width: int) -> list[Row]:
    names = max(map(len, codes))
    longest = max(map(len, codes.values()))
    columns = [("", longest, ""), ("", names, ""), ("", max(8, width - names - longest - 31), ""), ("", 22, "")]
    cells: list[list[Span | str]] = []
    for name, code in codes.items():
        trial = model.state.trials[name]
        how = progress(model, trial) if trial.status == "running" else trial.status
        cells.append([(code, "warn"), (name, "strong"), words.name_of(model.state, trial.experiment), (how, "dim")])
    return [clip(line, width) for line in table(columns, cells)]
