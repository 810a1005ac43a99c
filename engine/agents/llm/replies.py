"""What each role answers, as schema and as a value: taken out of whatever the model wrote, or refused with the reason.

A value that leaves this module is bounded in every part. Nothing in it is trusted for anything but its text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from engine.agents.llm import loose
from engine.agents.llm.edits import Edit, EditError, apply, blocks
from engine.agents.protocol import Analysis, Answered, Draft, Fix, Judgement
from store.events import Prediction

MAX_PROGRAM = 128 * 1024
MAX_PREDICTIONS = 8
MAX_ANSWER = 6_000
"""Characters of an answer to a person."""
_UP = {"up", "increase", "increases", "higher", "improve", "improves", "better", "+", "rise", "rises"}
_DOWN = {"down", "decrease", "decreases", "lower", "worse", "worsen", "-", "fall", "falls"}
_SAME = {"same", "unchanged", "equal", "neutral", "none", "no change", "0"}
_REPEATS = {"duplicate", "repeat", "repeated", "repeats", "same", "not novel", "not_novel"}


class Unusable(ValueError):
    """An answer cannot be used; the message says why, in words for whoever wrote it."""


# --- schemas ----------------------------------------------------------------------------------------------------------


def _object(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


_TEXT: dict[str, Any] = {"type": "string"}
_EDITS: dict[str, Any] = {"type": "array", "items": _object(search=_TEXT, replace=_TEXT)}


def _texts() -> dict[str, Any]:
    return {"type": "array", "items": _TEXT}


def schema(role: str, tasks: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON schema of a role's answer."""
    task = {"type": "string", "enum": [*tasks, "score"]}
    direction = {"type": "string", "enum": ["up", "down", "same"]}
    prediction = _object(task=task, direction=direction, size={"type": "number"}, reason=_TEXT)
    table: dict[str, dict[str, Any]] = {
        "researcher": _object(
            title=_TEXT, motivation=_TEXT, hypothesis=_TEXT,
            predictions={"type": "array", "items": prediction}, edits=_EDITS, program=_TEXT,
        ),
        "engineer": _object(diagnosis=_TEXT, edits=_EDITS, program=_TEXT),
        "novelty": _object(
            verdict={"type": "string", "enum": ["novel", "duplicate"]}, duplicate_of=_TEXT, reason=_TEXT
        ),
        "analyst": _object(summary=_TEXT, evidence=_texts(), lessons=_texts(), next=_texts()),
    }  # fmt: skip
    return table[role]


# --- values -----------------------------------------------------------------------------------------------------------


def draft(text: str, parent: str, tasks: Sequence[str]) -> tuple[Draft, list[str]]:
    """A proposal, and remarks on what of it was left out. Raises `Unusable`."""
    answer = _answer(text, ("title", "motivation", "hypothesis"))
    title, motivation = _text(answer, "title", 200), _text(answer, "motivation", 4_000)
    if not title or not motivation:
        raise Unusable("`title` and `motivation` must be texts that are not empty")
    predictions, remarks = _predictions(answer.get("predictions"), tasks)
    program = _program(text, answer, parent)
    if program.strip() == parent.strip():
        raise Unusable("the program is the parent's own, unchanged")
    found = Draft(title, motivation, _text(answer, "hypothesis", 2_000), predictions, program)
    return found, remarks


def fix(text: str, program: str) -> Fix:
    """A repair. Raises `Unusable`."""
    answer = _answer(text, ("diagnosis",))
    mended = _program(text, answer, program)
    if mended.strip() == program.strip():
        raise Unusable("the program is the failed one, unchanged")
    return Fix(_text(answer, "diagnosis", 1_000) or "no diagnosis was given", mended)


def judgement(text: str, known: Sequence[str]) -> Judgement:
    """A verdict on novelty; a repetition must name one of the experiments that were shown. Raises `Unusable`."""
    answer = _answer(text, ("verdict",))
    verdict = _text(answer, "verdict", 40).strip().lower()
    reason, of = _text(answer, "reason", 1_000), _text(answer, "duplicate_of", 64).strip()
    if verdict not in _REPEATS:
        if verdict not in ("novel", "new", "different", "unique"):
            raise Unusable(f"`verdict` must be novel or duplicate, not {verdict[:40]!r}")
        return Judgement("", reason)
    if of not in known:
        raise Unusable(f"`duplicate_of` must be one of {', '.join(known)}, not {of[:40]!r}")
    return Judgement(of, reason)


def analysis(text: str) -> Analysis:
    """A report. Raises `Unusable`."""
    answer = _answer(text, ("summary",))
    summary = _text(answer, "summary", 2_000)
    if not summary:
        raise Unusable("`summary` must be a text that is not empty")
    return Analysis(
        summary, _list(answer, "evidence", 12, 600), _list(answer, "lessons", 8, 400), _list(answer, "next", 8, 400)
    )


def answered(text: str) -> Answered:
    """An answer to a person in plain words, bounded. Raises `Unusable` where there is none."""
    plain = _clean(loose.without_thoughts(text)).strip()
    if not plain:
        raise Unusable("the answer is empty" if not text.strip() else "the answer is reasoning alone, without a result")
    return Answered(plain if len(plain) <= MAX_ANSWER else plain[:MAX_ANSWER].rstrip() + " […]")


# --- finding them -----------------------------------------------------------------------------------------------------


def _answer(text: str, wanted: tuple[str, ...]) -> dict[str, Any]:
    """The object with the wanted keys; the last one, because models correct themselves."""
    plain = loose.without_thoughts(text)
    if not plain.strip():
        raise Unusable("the answer is empty" if not text.strip() else "the answer is reasoning alone, without a result")
    fenced = "\n".join(content for language, content in loose.fences(plain) if language in ("", "json", "json5"))
    best: dict[str, Any] = {}
    for place in (plain, fenced) if fenced else (plain,):
        for found in loose.objects(place):
            while len(found) == 1 and isinstance(inner := next(iter(found.values())), dict):
                found = inner
            if sum(key in found for key in wanted) >= max(1, sum(key in best for key in wanted)):
                best = found
        if all(key in best for key in wanted):
            break
    missing = [key for key in wanted if key not in best]
    if not best:
        how = "is not closed: the answer was cut off" if loose.is_open(plain) else "was found"
        raise Unusable(f"no JSON object with {', '.join(wanted)} {how}")
    if missing:
        raise Unusable(f"the JSON object has no {', '.join(missing)}")
    return best


def _program(text: str, answer: dict[str, Any], parent: str) -> str:
    """The program: whole, or the parent with edits; in the object, or in a fence beside it. Raises `Unusable`."""
    whole = _source(answer.get("program"))
    if not whole.strip():
        edits = _edits(answer.get("edits")) or blocks(text)
        whole = _edited(parent, edits) if edits else _fenced(text)
    elif found := blocks(whole):
        whole = _edited(parent, found)
    if not whole.strip():
        raise Unusable("there is neither a `program` nor `edits`")
    if len(whole.encode("utf-8", "replace")) > MAX_PROGRAM:
        raise Unusable(f"the program is larger than {MAX_PROGRAM // 1024} kB")
    return whole if whole.endswith("\n") else whole + "\n"


def _edited(parent: str, edits: list[Edit]) -> str:
    try:
        return apply(parent, edits)
    except EditError as error:
        raise Unusable(str(error)) from None


def _edits(value: object) -> list[Edit]:
    if not isinstance(value, list):
        return []
    found = [one for one in value if isinstance(one, dict) and isinstance(one.get("search"), str)]
    return [Edit(one["search"], one["replace"] if isinstance(one.get("replace"), str) else "") for one in found]


def _source(value: object) -> str:
    """A program as text without a fence around it; some models send its lines."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "\n".join(value)
    if not isinstance(value, str):
        return ""
    inner = loose.fences(value + "\n") if value.lstrip().startswith(("```", "~~~")) else []
    return _clean(inner[0][1] if inner else value)


def _fenced(text: str) -> str:
    """The longest fenced block that looks like a program."""
    every = loose.fences(loose.without_thoughts(text))
    found = [content for language, content in every if language in ("python", "py")]
    return _clean(max(found, key=len, default=""))


def _clean(text: str) -> str:
    """Text that UTF-8 can hold, whatever half characters the model's JSON named."""
    return text.replace("\r\n", "\n").encode("utf-8", "replace").decode()


def _text(answer: dict[str, Any], key: str, limit: int) -> str:
    value = answer.get(key)
    if isinstance(value, list):
        value = " ".join(one for one in value if isinstance(one, str))
    return _clean(value)[:limit].strip() if isinstance(value, str) else ""


def _list(answer: dict[str, Any], key: str, count: int, limit: int) -> list[str]:
    value = answer.get(key)
    value = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    texts = [_clean(one)[:limit].strip() for one in value if isinstance(one, str)]
    return [text for text in texts if text][:count]


def _predictions(value: object, tasks: Sequence[str]) -> tuple[list[Prediction], list[str]]:
    """Those predictions that can be checked, and remarks on the others."""
    kept: dict[str, Prediction] = {}
    remarks: list[str] = []
    for one in value[: 4 * MAX_PREDICTIONS] if isinstance(value, list) else []:
        task = _text(one, "task", 60) if isinstance(one, dict) else ""
        if task not in (*tasks, "score"):
            known = ", ".join((*tasks, "score"))
            remarks.append(f"a prediction on {task or 'nothing'!r} was left out: the tasks are {known}")
            continue
        word = _text(one, "direction", 20).lower()
        if word not in _UP | _DOWN | _SAME:
            remarks.append(f"a prediction on {task} was left out: direction {word!r} is not up, down or same")
            continue
        direction: Any = "up" if word in _UP else "down" if word in _DOWN else "same"
        kept.setdefault(task, Prediction(task, direction, _size(one.get("size")), _text(one, "reason", 400)))
    if not kept:
        remarks.append("no prediction can be checked")
    return list(kept.values())[:MAX_PREDICTIONS], remarks[:MAX_PREDICTIONS]


def _size(value: object) -> float:
    """How large a predicted change is, 0 where that is no number that means something."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e6:
        return 0.0
    return abs(float(value)) if math.isfinite(value) else 0.0
