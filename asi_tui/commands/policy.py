"""`asi policy show|list|check|set`: which programs may train without asking, and what another policy would do."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path

import msgspec

from asi_tui.commands.common import DONE, USAGE, CommandError, complain, find_run, who
from asi_tui.commands.look import print_json
from asi_tui.safe import clean, clean_lines
from engine.client.rundir import RunPaths
from store import events as ev
from store import policy as po
from store.blobs import BlobError, Blobs
from store.folding import fold
from store.journal import JournalCorrupt, read
from store.policy_file import read_policy_text
from store.state import Experiment, RunState


class InForce(msgspec.Struct, frozen=True):
    """A run's policy: its text, and where it comes from in words."""

    text: str
    source: str
    policy: po.Policy


class Taken(msgspec.Struct, frozen=True):
    """What one policy says of a proposal, and why, rule by rule."""

    verdict: str
    rule: str
    people: int
    of: int
    risk: str
    because: list[str]


class Checked(msgspec.Struct, frozen=True):
    """One proposal that came to the gate.

    recorded: the rule that took it then. other: what FILE would have done.
    """

    experiment: str
    title: str
    origin: str
    tier: str
    recorded: str
    now: Taken
    other: Taken | None = None
    differs: bool = False


class Report(msgspec.Struct, frozen=True):
    """What `asi policy check --json` prints."""

    policy: str
    source: str
    autonomy: str
    warning: str
    other: str
    other_warning: str
    proposals: list[Checked]


class Proposed(msgspec.Struct):
    """A proposal as it came to the gate, with the rule that the record names."""

    case: po.Case
    rule: str = ""


def policy(options: argparse.Namespace) -> int:
    """Show, list, check or set policies."""
    return {"show": _show, "list": _list, "check": _check, "set": _set}[options.what](options)


def _show(options: argparse.Namespace) -> int:
    if options.run in po.BUILT_IN_NAMES:
        print(*clean_lines(po.built_in(options.run)), sep="\n")
        return DONE
    root = find_run(options.run)
    found = in_force(root, _state(root)[0])
    print(clean(f"# {found.policy.name}: {found.source}"))
    if odd := po.warning(found.policy):
        print(clean(f"# warning: {odd}"))
    print(*clean_lines(found.text.rstrip("\n")), sep="\n")
    return DONE


def _list(options: argparse.Namespace) -> int:
    width = max(map(len, po.BUILT_IN_NAMES))
    for name in po.BUILT_IN_NAMES:
        about = po.built_in(name).split("\n", 1)[0].lstrip("# ")
        print(f"{name:<{width}}  {about.split('. ')[0].rstrip('.')}")
    print("\nprint one: asi policy show NAME; put one in force: asi policy set NAME [RUN]")
    return DONE


def _set(options: argparse.Namespace) -> int:
    from asi_tui.commands.control import tell

    text, adopted = _named(options.policy)
    root = find_run(options.run)
    said = tell(root, "policy", who=who(), program=text, reason=options.reason or "")
    odd = po.warning(adopted)
    if odd and odd not in said:
        complain(f"warning: {odd}")
    print(said)
    return DONE


def _named(name: str) -> tuple[str, po.Policy]:
    """The text of a built-in policy or of a file, checked. Raises `CommandError`."""
    try:
        if name in po.BUILT_IN_NAMES:
            text = po.built_in(name)
        elif os.sep not in name and not name.endswith(".toml") and not Path(name).exists():
            text = po.built_in(name)  # says which there are
        else:
            text = read_policy_text(Path(name))
        return text, po.parse_policy(text, clean(Path(name).name, 80))
    except po.PolicyError as error:
        raise CommandError(str(error), USAGE) from error


def in_force(root: Path, state: RunState) -> InForce:
    """The policy that decides in a run, or will when its engine starts. Raises `CommandError`."""
    from engine.client.proposer import settle
    from store.config import ConfigError, load

    paths, file = RunPaths(root), root / "policy.toml"
    try:
        if state.policy:
            text, source = Blobs(paths.blobs).text(state.policy), f"in force in {root.name}, {state.policy[:12]}"
        elif file.exists():
            text, source = read_policy_text(file), f"policy.toml of {root.name}, in force when its engine starts"
        else:
            name = po.default_name(settle(load(paths.config), os.environ).agents.kind)
            text, source = po.built_in(name), f"the default, in force when the engine of {root.name} starts"
        return InForce(text, source, po.parse_policy(text))
    except (po.PolicyError, BlobError, ConfigError) as error:
        raise CommandError(f"{root.name}: {error}") from error


def _state(root: Path) -> tuple[RunState, dict[str, Proposed]]:
    """The run's state, and every proposal as it last came to the gate, oldest first. Raises `CommandError`."""
    state, proposed = RunState(), dict[str, Proposed]()
    try:
        for record in read(RunPaths(root).journal):
            state = fold(state, record)
            event = record.data
            if isinstance(event, ev.RiskAssessed):
                origin = state.experiments[event.experiment].origin
                proposed.pop(event.experiment, None)
                if origin != "baseline":
                    proposed[event.experiment] = Proposed(
                        po.Case(origin, event.tier, event.findings, event.cpu_seconds, event.novelty, record.time)
                    )
            elif isinstance(event, ev.ApprovalRequested | ev.ApprovalDecided) and event.experiment in proposed:
                proposed[event.experiment].rule = event.rule or proposed[event.experiment].rule
    except JournalCorrupt as error:
        raise CommandError(f"{root.name}: {error}; `asi audit --verify` says more") from error
    return state, proposed


def _check(options: argparse.Namespace) -> int:
    name, run = options.policy, options.run
    if run is None and name is not None and not _means_policy(name):
        name, run = None, name
    other = None if name is None else _named(name)[1]
    root = find_run(run)
    state, proposed = _state(root)
    found = in_force(root, state)
    checked = [
        _checked(state.experiments[key], one, found.policy, other, state.autonomy)
        for key, one in list(proposed.items())[-options.last :]
    ]
    report = Report(
        found.policy.name, found.source, state.autonomy, po.warning(found.policy),
        other.name if other else "", po.warning(other) if other else "", checked,
    )  # fmt: skip
    if options.json:
        print_json(report)
    else:
        _print_report(report, options.why)
    return DONE


def _means_policy(word: str) -> bool:
    """Whether the only word after `check` is a policy; else it is a run."""
    return word in po.BUILT_IN_NAMES or word.endswith(".toml") or Path(word).is_file()


def _checked(
    entry: Experiment, one: Proposed, now: po.Policy, other: po.Policy | None, autonomy: ev.Autonomy
) -> Checked:
    taken = _taken(now, one.case, autonomy)
    changed = _taken(other, one.case, autonomy) if other is not None else None
    differs = changed is not None and (taken.verdict, taken.people, taken.of) != (
        changed.verdict, changed.people, changed.of,
    )  # fmt: skip
    return Checked(entry.id, entry.title, entry.origin, one.case.tier, one.rule, taken, changed, differs)


def _taken(by: po.Policy, case: po.Case, autonomy: ev.Autonomy) -> Taken:
    ruling = po.decide(by, case, autonomy)
    because = po.explain(by, case, autonomy)
    return Taken(ruling.verdict, ruling.rule, ruling.people, ruling.of, ruling.risk, because)


def _print_report(report: Report, why: bool) -> None:
    print(clean(f"{report.policy}: {report.source}; autonomy {report.autonomy}"))
    for name, odd in ((report.policy, report.warning), (report.other, report.other_warning)):
        if odd:
            print(clean(f"warning: {name}: {odd}"))
    for one in report.proposals:
        then = f"; then by {one.recorded}" if one.recorded not in ("", one.now.rule) else ""
        print(clean(f"{one.experiment}  {clean(one.title, 60)}  ({one.origin}, {one.tier}{then})"))
        _print_taken("  ", report.policy, one.now, why)
        if one.other is not None:
            _print_taken("* " if one.differs else "  ", report.other, one.other, why)
    if not report.proposals:
        print("no proposal has come to the gate yet")
        return
    takings = [(report.policy, [one.now for one in report.proposals])]
    if report.other:
        takings.append((report.other, [one.other for one in report.proposals if one.other is not None]))
    for name, taken in takings:
        print(clean(f"{_proposals(len(taken))} under {name}: {_counted(taken)}"))
    if report.other:
        differ = sum(one.differs for one in report.proposals)
        print(f"{_proposals(differ)} would have gone another way" + (", marked *" if differ else ""))


def _print_taken(mark: str, name: str, taken: Taken, why: bool) -> None:
    print(clean(f"{mark}  {name}: {_words(taken)}, by “{taken.rule}”"))
    for line in taken.because if why else []:
        print(clean(f"        {line}"))


def _words(taken: Taken) -> str:
    if taken.verdict != "ask":
        return taken.verdict
    return f"ask({taken.people} of {taken.of})" if taken.of else f"ask({taken.people})" if taken.people > 1 else "ask"


def _counted(taken: list[Taken]) -> str:
    counts = Counter(one.verdict for one in taken)
    return ", ".join(f"{verdict} {counts[verdict]}" for verdict in ("allow", "ask", "deny"))


def _proposals(count: int) -> str:
    return "1 proposal" if count == 1 else f"{count} proposals"
