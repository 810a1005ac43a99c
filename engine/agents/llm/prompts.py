"""Prompts from their Markdown files, filled in under a token budget: what is least useful is left out first.

Tokens are counted conservatively, one for three bytes. Text from models, programs and papers is fenced as data, with a
tag that the text cannot know.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
from pathlib import Path

import msgspec

from engine.agents.llm.client import Message
from engine.agents.protocol import AnalysisBrief, Member, NoveltyBrief, ProposalBrief, QuestionBrief, RepairBrief

FOLDER = Path(__file__).resolve().parents[1] / "prompts"
BYTES_PER_TOKEN = 3
PER_MESSAGE = 8
UNKNOWN = 1e8
MOST_EVIDENCE = 6_000
_SLOT = re.compile(r"\{\{(\w+)\}\}")
_EMPTY_LINES = re.compile(r"\n{3,}")


class DoesNotFit(Exception):
    """What a prompt cannot do without needs more tokens than there are; the message says how many."""


class Section(msgspec.Struct):
    """A part that may shrink: items, most useful first. `worth` orders sections: the lowest is cut first."""

    heading: str
    items: list[str]
    worth: int

    def text(self) -> str:
        """The section as Markdown, empty without items."""
        return "\n\n".join([f"# {self.heading}", *self.items]) if self.items else ""


def count(text: str) -> int:
    """An upper estimate of the tokens in a text."""
    return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)


def count_messages(messages: list[Message]) -> int:
    """An upper estimate of the tokens of a conversation."""
    return sum(count(message.content) + PER_MESSAGE for message in messages)


@functools.cache
def template(name: str) -> tuple[str, str]:
    """The system's and the user's part of a prompt file; one without parts is all the user's."""
    text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    head, marker, user = text.partition("<!-- user -->\n")
    return (head.replace("<!-- system -->\n", "").strip(), user.strip()) if marker else ("", text.strip())


def fill(text: str, values: dict[str, str]) -> str:
    """A template with its slots filled; what is filled in is not looked at again."""
    return _EMPTY_LINES.sub("\n\n", _SLOT.sub(lambda slot: values[slot[1]], text)).strip()


def data(kind: str, text: str, limit: int = 0) -> str:
    """Text of unknown origin between tags with a name made from the text, so that it cannot close them itself."""
    kept = text if not limit or len(text) <= limit else text[: limit // 2] + "\n[…]\n" + text[-limit // 2 :]
    kept = kept.replace("</data-", "<\\/data-")
    tag = f"data-{hashlib.sha256(kept.encode('utf-8', 'replace')).hexdigest()[:8]}"
    return f'<{tag} kind="{kind}">\n{kept.rstrip()}\n</{tag}>'


def build(name: str, values: dict[str, str], sections: dict[str, Section], budget: int) -> list[Message]:
    """The conversation for a role within `budget` tokens.

    Raises:
        DoesNotFit: even without every section it is too long.
    """
    system, user = template(name)
    while True:
        filled = fill(user, values | {key: section.text() for key, section in sections.items()})
        messages = [Message("system", system), Message("user", filled)]
        over = count_messages(messages) - budget
        if over <= 0:
            return messages
        open_sections = [section for section in sections.values() if section.items]
        if not open_sections:
            raise DoesNotFit(f"the shortest prompt for the {name} needs {over + budget} tokens, there are {budget}")
        least = min(open_sections, key=lambda section: section.worth)
        while over > 0 and least.items:
            over -= count(least.items.pop())


# --- the roles --------------------------------------------------------------------------------------------------------


def researcher(brief: ProposalBrief, budget: int) -> list[Message]:
    """The prompt for a proposal. Raises `DoesNotFit`."""
    parent = brief.parent
    tasks = [f"- {task.name}: {task.skill}; {task.metric}, chance {task.chance:.3g}" for task in brief.tasks]
    values = {
        "contract": brief.contract,
        "tasks": "\n".join([*tasks, "Higher is better for every task; `score` stands for all of them."]),
        "parent_title": _line(f"{parent.id} {parent.title}"),
        "parent_result": result(parent),
        "parent_program": data("program", parent.source),
        "parent_id": parent.id,
        "experiment": brief.experiment,
    }
    known = [member for member in brief.population if member.id != parent.id]
    sections = {
        "rejections": Section("Refused by the supervisors", [data("statement", t, 800) for t in brief.rejections], 6),
        "lessons": Section("What was learned", [data("lesson", text, 1_200) for text in brief.lessons], 5),
        "failures": Section("Tried nearby, came to nothing", [data("failure", t, 400) for t in brief.failures], 4),
        "references": Section("Other programs", [_program(member) for member in brief.references], 1),
        "baselines": Section("Baselines", [_row(m) for m in known if m.origin == "baseline"], 3),
        "population": Section("The best so far", [_row(m) for m in known if m.origin != "baseline"][:30], 2),
    }  # fmt: skip
    return build("researcher", values, sections, budget)


def engineer(brief: RepairBrief, budget: int) -> list[Message]:
    """The prompt for a repair. Raises `DoesNotFit`."""
    values = {
        "contract": brief.contract,
        "failed": _line(brief.failed),
        "evidence": data("evidence", brief.evidence, MOST_EVIDENCE),
        "title": f": {_line(brief.title)}" if brief.title else "",
        "program": data("program", brief.program),
        "attempt": str(brief.attempt),
        "experiment": brief.experiment,
    }
    history = Section("Earlier repairs, which did not help", [data("diagnosis", t, 600) for t in brief.history], 1)
    return build("engineer", values, {"history": history}, budget)


def novelty(brief: NoveltyBrief, budget: int) -> list[Message]:
    """The prompt for a judgement on novelty. Raises `DoesNotFit`."""
    near = [f"## {n.id}: {_line(n.title)}\n\n{data('motivation', n.motivation, 2_000)}" for n in brief.neighbours]
    values = {
        "experiment": brief.experiment,
        "title": _line(brief.title),
        "motivation": data("motivation", brief.motivation, 4_000),
        "neighbours": "\n\n".join(near),
    }
    return build("novelty", values, {}, budget)


def analyst(brief: AnalysisBrief, budget: int) -> list[Message]:
    """The prompt for a report. Raises `DoesNotFit`."""
    own = brief.result
    verdicts = {outcome.task: outcome for outcome in brief.outcomes}
    outcomes = []
    for one in brief.predictions:
        line = f"- {one.task} {one.direction} by about {one.size:.3g}"
        if found := verdicts.get(one.task):
            line += f": {found.verdict}, measured {found.measured:+.4g} ({found.note})"
        outcomes.append(line + (f"\n{data('reason', one.reason, 400)}" if one.reason else ""))
    above = brief.parent.id if brief.parent else ""
    compared = [_row(brief.parent)] if brief.parent else []
    compared += [_row(m) for m in brief.population if m.origin == "baseline" and m.id != above]
    siblings = [m for m in brief.population if m.parent == own.parent and m.id != own.id and m.origin != "baseline"]
    values = {
        "experiment": brief.experiment,
        "title": _line(own.title),
        "idea": data("proposal", f"{brief.motivation}\n\n{brief.hypothesis}\n\n{brief.change}".strip(), 6_000),
        "result": result(own, brief),
        "outcomes": "\n".join(outcomes) or "None that can be checked.",
        "compared": "\n".join(compared) or "Nothing yet.",
    }
    sections = {
        "population": Section("Its siblings", [_row(member) for member in siblings[:12]], 2),
        "program": Section("The program", [data("program", own.source)], 1),
    }
    return build("analyst", values, sections, budget)


def question(brief: QuestionBrief, budget: int) -> list[Message]:
    """The prompt for an answer to a person's question. Raises `DoesNotFit`."""
    own, above = brief.own, brief.parent
    verdicts = {outcome.task: outcome for outcome in brief.outcomes}
    predicted = []
    for one in brief.predictions:
        found = verdicts.get(one.task)
        measured = f": {found.verdict}, measured {found.measured:+.4g}" if found else ""
        predicted.append(f"{one.task} {one.direction} by about {one.size:.3g}{measured}. {one.reason}")
    findings = [f"{one.severity} {one.kind}, line {one.line}: {one.message}" for one in brief.findings]
    idea = [brief.motivation, brief.hypothesis, brief.change, *predicted]
    values = {
        "experiment": brief.experiment,
        "title": _line(own.title),
        "stands": _line(brief.stands),
        "result": result(own),
        "parent": _row(above) if above else "It has none.",
        "question": data("question", brief.question, 2_000),
    }
    sections = {
        "program": Section("The program", _some("program", own.source), 5),
        "idea": Section("What was proposed", _some("proposal", "\n\n".join(text for text in idea if text), 8_000), 4),
        "findings": Section("Found by the assessment", _some("findings", "\n".join(findings), 4_000), 3),
        "parent_program": Section("The parent's program", _some("program", above.source if above else ""), 2),
        "summary": Section("The Analyst's summary", _some("summary", brief.summary, 2_000), 1),
    }
    return build("question", values, sections, budget)


def again(problem: str) -> str:
    """What is said to an answer that cannot be used; the problem may quote it."""
    return fill(template("again")[1], {"problem": data("problem", problem, 1_000)})


def go_on() -> str:
    """What is said to an answer that was cut off."""
    return template("continue")[1]


# --- pieces -----------------------------------------------------------------------------------------------------------


def result(member: Member, brief: AnalysisBrief | None = None) -> str:
    """Everything measured of one program, in words."""
    if not member.seeds:
        return "Not measured yet."
    lines = [
        f"Score {member.score:+.2f} noise units against the baseline, "
        f"95 % interval {_interval(member.low, member.high)}, {member.seeds} seed{'s' if member.seeds != 1 else ''}."
    ]
    if brief is not None and brief.against_parent is not None:
        value, low, high = brief.against_parent
        lines.append(f"Against its parent {value:+.2f} noise units, 95 % interval {_interval(low, high)}.")
    for task, difference in member.tasks.items():
        noise = f", seed noise {brief.noise[task]:.2g}" if brief is not None and task in brief.noise else ""
        lines.append(f"- {_line(task)}: {difference:+.4g} against the baseline{noise}")
    return "\n".join(lines)


def _some(kind: str, text: str, limit: int = 0) -> list[str]:
    """A text as the one item of a section, or none."""
    return [data(kind, text, limit)] if text else []


def _row(member: Member) -> str:
    """A program in one line."""
    tasks = ", ".join(f"{_line(task)} {difference:+.3g}" for task, difference in member.tasks.items())
    measured = f"score {member.score:+.2f} {_interval(member.low, member.high)}" if member.seeds else "not measured yet"
    came = f", child of {member.parent}" if member.parent else ""
    return f"- {member.id} “{_line(member.title)}”{came}: {measured}{f'; {tasks}' if tasks else ''}"


def _program(member: Member) -> str:
    return f"{_row(member)}\n\n{data('program', member.source)}"


def _interval(low: float, high: float) -> str:
    known = abs(low) < UNKNOWN and abs(high) < UNKNOWN
    return f"[{low:+.2f}, {high:+.2f}]" if known else "[not known from one seed]"


def _line(text: str) -> str:
    """One short line without anything that could pass for a heading or a tag."""
    return " ".join(text.replace("<", "‹").replace(">", "›").replace("#", "").split())[:200]
