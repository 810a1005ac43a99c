"""What can be taken out of an answer, whatever shape it has, and what cannot."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.agents.llm import loose, replies
from engine.agents.llm.edits import Edit, EditError, apply, blocks
from engine.agents.llm.replies import Unusable, analysis, draft, fix, judgement

PARENT = "import torch\n\n\nclass Mixer:\n    rate = 1\n    gate = 1\n"
PROGRAM = "import torch\n\n\nclass Mixer:\n    rate = {2}  # // not a comment of JSON\n"
GOOD = {
    "title": "t", "motivation": "m", "hypothesis": "h", "edits": [], "program": PROGRAM,
    "predictions": [{"task": "recall", "direction": "up", "size": 0.1, "reason": "r"}],
}  # fmt: skip
TEXT = json.dumps(GOOD)
WITHOUT = json.dumps({key: value for key, value in GOOD.items() if key != "program"})
LOOSE = json.dumps(GOOD, indent=1)[:-2]

SHAPES = {
    "plain": TEXT,
    "fence": f"```json\n{TEXT}\n```",
    "fence without a language": f"Here:\n```\n{TEXT}\n```\nDone.",
    "prose": f"Sure, {{here}} it is: {TEXT} Hope it helps {{really}}.",
    "thoughts": f'<think>Perhaps {{"title": "no"}} or so</think>\n{TEXT}',
    "thoughts that were opened in the prompt": f"hmm, a brace {{ \n</think>{TEXT}",
    "thoughts that never end": f"<think>so {TEXT}",
    "trailing comma and comments": LOOSE + ",  // the end\n /* really */ }",
    "python words": TEXT.replace('"edits": []', '"edits": None'),
    "real newlines in a string": TEXT.replace("\\n", "\n"),
    "triple quotes": WITHOUT[:-1] + f', "program": """{PROGRAM}"""}}',
    "wrapped": json.dumps({"proposal": GOOD}),
    "program beside it": f"{WITHOUT}\n```python\n{PROGRAM}```",
    "program in a fence inside": json.dumps({**GOOD, "program": f"```python\n{PROGRAM}```"}),
    "program as lines": json.dumps({**GOOD, "program": PROGRAM.splitlines()}),
    "twice, the last one counts": json.dumps({**GOOD, "title": "first"}) + "\nNo, better:\n" + TEXT,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_proposal_is_found_in(shape: str) -> None:
    found, _ = draft(SHAPES[shape], PARENT, ["recall"])
    assert (found.title, found.motivation, found.program) == ("t", "m", PROGRAM)
    assert [(one.task, one.direction, one.size) for one in found.predictions] == [("recall", "up", 0.1)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("<think>only thoughts</think>", "reasoning alone"),
        ("I will not do that.", "no JSON object"),
        (TEXT[:-40], "not closed"),
        (json.dumps({"name": "x", "code": 5}), "no JSON object"),
        (json.dumps({**GOOD, "title": ""}), "`title`"),
        (json.dumps({**GOOD, "program": "", "edits": []}), "neither"),
        (json.dumps({**GOOD, "program": PARENT}), "unchanged"),
        (json.dumps({**GOOD, "program": "x" * 200_000}), "larger than"),
        (json.dumps({"title": "t"}), "has no motivation"),
        ("[" * 50_000, "no JSON object"),
        ('{"a":' * 50_000, "not closed"),
        ('{"title": "x", "motivation": }', "no JSON object"),
    ],
)
def test_what_cannot_be_used_says_why(text: str, why: str) -> None:
    with pytest.raises(Unusable, match=why):
        draft(text, PARENT, ["recall"])


def test_predictions_that_cannot_be_checked_are_left_out() -> None:
    listed = [
        {"task": "recall", "direction": "increase", "size": -0.5},
        {"task": "recall", "direction": "down"},
        {"task": "copying", "direction": "up"},
        {"task": "score", "direction": "sideways"},
        "nonsense",
        {"task": "parity", "direction": "same", "size": 1e300},
    ]
    found, remarks = draft(json.dumps({**GOOD, "predictions": listed}), PARENT, ["recall", "parity"])
    assert [(one.task, one.direction, one.size) for one in found.predictions] == [
        ("recall", "up", 0.5),
        ("parity", "same", 0.0),
    ]
    assert len(remarks) == 3
    assert "copying" in remarks[0]


def test_edits_apply_only_to_exactly_one_place() -> None:
    assert apply(PARENT, [Edit("rate = 1", "rate = 2"), Edit("rate = 2\n", "rate = 3\n")]).count("rate = 3") == 1
    with pytest.raises(EditError, match=r"edit 1 of 1: .*stands in 2 places"):
        apply(PARENT, [Edit(" = 1", " = 2")])
    with pytest.raises(EditError, match="nearest line there is '    rate = 1'"):
        apply(PARENT, [Edit("   rate= 1", "x")])
    with pytest.raises(EditError, match="is empty"):
        apply(PARENT, [Edit("", "x")])
    with pytest.raises(EditError, match="change nothing"):
        apply(PARENT, [Edit("rate", "rate")])
    block = "<<<<<<< SEARCH\n    rate = 1\n=======\n    rate = 9\n>>>>>>> REPLACE"
    assert blocks(block) == [Edit("    rate = 1", "    rate = 9")]
    edited, _ = draft(f"{json.dumps({**GOOD, 'program': ''})}\n{block}", PARENT, [])
    assert "rate = 9" in edited.program
    inside, _ = draft(json.dumps({**GOOD, "program": block}), PARENT, [])
    assert inside.program == edited.program


def test_the_other_roles() -> None:
    assert fix(json.dumps({"diagnosis": "d", "program": PROGRAM}), PARENT).program == PROGRAM
    with pytest.raises(Unusable, match="failed one"):
        fix(json.dumps({"diagnosis": "d", "program": PARENT}), PARENT)
    assert judgement('{"verdict": "Duplicate", "duplicate_of": "e0001"}', ["e0001"]).duplicate_of == "e0001"
    assert judgement('{"verdict": "novel", "duplicate_of": "e0001"}', ["e0001"]).duplicate_of == ""
    with pytest.raises(Unusable, match="one of e0001"):
        judgement('{"verdict": "duplicate", "duplicate_of": "e0009"}', ["e0001"])
    with pytest.raises(Unusable, match="novel or duplicate"):
        judgement('{"verdict": "approve"}', ["e0001"])
    report = analysis(json.dumps({"summary": "s", "lessons": ["a" * 9_000, 5, ""], "score": 99, "next": "one"}))
    assert (report.lessons, report.next) == (["a" * 400], ["one"])


def test_half_characters_become_marks() -> None:
    found, _ = draft(
        '{"title": "\\ud800x", "motivation": "m", "hypothesis": "h", "program": "a = \'\\udfff\'"}', PARENT, []
    )
    found.program.encode()
    assert found.title == "?x"


@given(st.text(alphabet='{}[]",:\\/*`<>think \n"""', max_size=300))
def test_no_text_breaks_it(text: str) -> None:
    list(loose.objects(text))
    loose.is_open(text)
    loose.without_thoughts(text)
    with pytest.raises(Unusable):
        draft(text, PARENT, [])


@pytest.mark.parametrize(
    "text", ["{" * 400_000, '{"' * 200_000, "{/*" * 130_000, "```\n" * 100_000, "<think>" * 57_000, "~~~x\n" * 80_000]
)
def test_long_nonsense_is_refused_soon(text: str) -> None:
    begun = time.monotonic()
    with pytest.raises(Unusable):
        draft(text, PARENT, [])
    assert time.monotonic() - begun < 50  # a few seconds where it was measured; quadratic work would take hours


def test_schemas_are_strict() -> None:
    for role in ("researcher", "novelty", "engineer", "analyst"):
        shape = replies.schema(role, ["recall"])
        assert shape["additionalProperties"] is False
        assert set(shape["required"]) == set(shape["properties"])
