"""Policies: first match wins, nothing softens a denial, and an error says where and what."""

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store import policy as po
from store.events import Finding
from store.policy import Case, Policy, PolicyError, Rule, Ruling, decide, explain, parse_policy, rule_for, with_rule
from tests.store import history

HEAD = 'version = 1\nname = "x"\n'
NOON = datetime.datetime(2030, 6, 5, 12, 0).timestamp()  # a Wednesday, local time
HIGH = Finding("import", "high", "imports os", 3)


def case(*findings: Finding, origin: str = "evolver", tier: str = "probe", cost: float = 30.0, **more: float) -> Case:
    return Case(origin, tier, list(findings), cost, **{"moment": NOON, **more})


def found(kind: str, severity: str = "low") -> Finding:
    return Finding(kind, severity, "seen", 1)  # type: ignore[arg-type]


def rules(text: str) -> Policy:
    return parse_policy(HEAD + text)


def one(fields: str, then: str = "allow") -> Policy:
    return rules(f'[[rule]]\nname = "r"\nthen = "{then}"\n{fields}\n')


# --- rules -----------------------------------------------------------------------------------------------------------


def test_the_first_match_decides_and_silence_asks() -> None:
    policy = Policy(1, "x", "deny", [Rule("first", "ask", origin=["evolver"]), Rule("second", "allow")])
    assert decide(policy, case()) == Ruling("ask", "first", 1, 0, 0.0, "R1")
    assert decide(policy, case(origin="person"))[:2] == ("allow", "second")
    assert decide(Policy(1), case())[:2] == ("ask", "default")
    assert decide(rules('[[rule]]\nname = "r"\nthen = "ask(2 of 3)"\nexpires_minutes = 5\n'), case()) == (
        "ask", "r", 2, 3, 5.0, "R1",
    )  # fmt: skip


NIGHT = datetime.datetime(2030, 6, 5, 23, 30).timestamp()
MORNING = datetime.datetime(2030, 6, 6, 6, 59).timestamp()
SATURDAY = datetime.datetime(2030, 6, 8, 12, 0).timestamp()


@pytest.mark.parametrize(
    ("fields", "yes", "no"),
    [
        ('origin = ["model", "evolver"]', case(), case(origin="person")),
        ('tier = ["probe"]', case(), case(tier="verify")),
        ('finding = ["fft", "leak"]', case(found("leak"), found("hook")), case(found("hook"))),
        ('only_findings = ["fft", "leak"]', case(found("leak")), case(found("leak"), found("hook"))),
        ("only_findings = []", case(), case(found("leak", "info"))),
        ('severity = "medium"', case(found("fft"), found("leak", "high")), case(found("leak"))),
        ('severity_at_most = "low"', case(), case(found("fft"), found("leak", "medium"))),
        ('risk = ["R2", "R3"]', case(HIGH), case(found("import", "medium"), found("leak", "high"))),
        ("cpu_seconds_over = 30", case(cost=30.1), case(cost=30.0)),
        ("cpu_seconds_under = 30", case(cost=29.9), case(cost=30.0)),
        ("novelty_below = 0.5", case(novelty=0.49), case(novelty=0.5)),
        ("novelty_above = 0.5", case(novelty=0.51), case(novelty=0.5)),
        ('hours = "22:00-07:00"', case(moment=NIGHT), case(moment=NOON)),
        ('hours = "22:00-07:00"', case(moment=MORNING), case(moment=MORNING + 60)),
        ('hours = "11:30-12:30"', case(moment=NOON), case(moment=NIGHT)),
        ('days = ["sat", "sun"]', case(moment=SATURDAY), case(moment=NOON)),
        ("until = 2030-06-05", case(moment=NIGHT), case(moment=MORNING)),
        ("until = 2030-06-05T12:00:01", case(moment=NOON), case(moment=NOON + 1)),
        ('origin = ["evolver"]\ncpu_seconds_under = 60', case(), case(cost=61.0)),
    ],
)
def test_every_field_matches_what_it_says(fields: str, yes: Case, no: Case) -> None:
    # The rule's name may come before or after its conditions.
    for policy in (one(fields), rules(f'[[rule]]\n{fields}\nthen = "allow"\nname = "r"\n')):
        for asked, rule in ((yes, "r"), (no, "default")):
            ruling, told = decide(policy, asked, "A2"), explain(policy, asked)
            risky = rule == "r" and "R2" in fields
            assert ruling[:2] == (("allow", "r") if rule == "r" else ("ask", "default")), fields
            assert ('"r" matches' if rule == "r" else '"r" does not match') in told[0]
            assert not risky or ruling.risk == "R0"


# --- risk and autonomy -----------------------------------------------------------------------------------------------


def test_what_can_do_more_than_compute_asks_two_people() -> None:
    ask, free = Policy(1), Policy(1, default="allow")
    assert po.risk_of([]) == po.risk_of([found("leak", "high"), found("import", "medium")]) == "R1"
    assert po.risk_of([HIGH]) == po.risk_of([found("never heard of", "high")]) == "R2"
    assert po.risk_of([found("patch"), HIGH]) == "R3"
    assert decide(ask, case(HIGH)) == Ruling("ask", "default", 2, 0, 0.0, "R2")
    assert decide(Policy(1, default="ask(1 of 1)"), case(found("harness"))) == Ruling("ask", "default", 2, 2, 0.0, "R3")
    assert decide(Policy(1, default="ask(3)"), case(HIGH)).people == 3
    assert decide(free, case(HIGH)) == Ruling("allow", "default", 0, 0, 0.0, "R0")


FINDINGS = st.builds(found, st.sampled_from([*po.KINDS, "strange"]), st.sampled_from(po.SEVERITIES))
CASES = st.builds(
    Case,
    st.sampled_from(["baseline", "evolver", "person", "model", "control"]),
    st.sampled_from(["probe", "verify"]),
    st.lists(FINDINGS, max_size=3),
    st.floats(0, 1e6),
    st.floats(0, 1),
    st.floats(1e9, 2e9),
)
THENS = st.sampled_from(["allow", "ask", "ask(2)", "ask(2 of 3)", "deny"])
RULES = st.builds(
    Rule,
    st.just("rule"),
    THENS,
    origin=st.none() | st.lists(st.sampled_from(["baseline", "evolver", "model"]), min_size=1),
    finding=st.none() | st.lists(st.sampled_from(list(po.KINDS)), min_size=1),
    severity=st.none() | st.sampled_from(po.SEVERITIES),
    cpu_seconds_over=st.none() | st.floats(0, 1e6),
)
POLICIES = st.builds(Policy, st.just(1), st.just("x"), THENS, st.lists(RULES, max_size=4))
LEVELS = ("A0", "A1", "A2", "A3", "A4")


@settings(max_examples=300, deadline=None)
@given(POLICIES, CASES)
def test_nothing_is_softer_than_it_may_be(policy: Policy, asked: Case) -> None:
    written = decide(policy, asked)
    risk = po.risk_of(asked.findings)
    for level in LEVELS:
        ruling = decide(policy, asked, level)
        if risk == "R4":
            assert (ruling.verdict, ruling.rule) == ("deny", "R4: never")
            continue
        assert (ruling.verdict == "deny") == (written.verdict == "deny"), "autonomy neither softens nor adds a denial"
        if ruling.verdict == "ask":
            assert ruling.people >= (2 if risk in ("R2", "R3") else 1)
            assert ruling.of == 0 or ruling.of >= ruling.people
        if level in ("A0", "A1") and asked.origin != "baseline":
            assert ruling.verdict != "allow"
        if ruling.verdict == "allow" and written.verdict == "ask":
            assert level in ("A3", "A4")
            assert written.people == 1
            assert risk == "R1"
        assert explain(policy, asked, level)


def test_autonomy_is_applied_after_the_rules() -> None:
    asks, allows = Policy(1), Policy(1, default="allow")
    assert [decide(allows, case(), level).verdict for level in LEVELS] == ["ask", "ask", "allow", "allow", "allow"]
    assert decide(allows, case(), "A0").rule == decide(asks, case(), "A0").rule == "A0: propose only"
    assert decide(allows, case(), "A1").rule == "A1: a person sees every program"
    assert decide(asks, case(), "A1").rule == "default"
    assert all(decide(allows, case(origin="baseline"), level).verdict == "allow" for level in LEVELS)
    medium, weak = case(found("leak", "medium")), case(found("isolation", "medium"))
    assert [decide(asks, case(found("fft")), level).verdict for level in ("A3", "A4")] == ["allow", "allow"]
    assert [decide(asks, medium, level).verdict for level in ("A3", "A4")] == ["ask", "allow"]
    assert decide(asks, weak, "A4").verdict == "ask", "a sandbox weaker than configured always asks"
    assert decide(Policy(1, default="ask(2)"), case(), "A4").verdict == "ask"


# --- the built-in ones -----------------------------------------------------------------------------------------------


def test_the_built_in_policies() -> None:
    cautious, trusting, paranoid = (parse_policy(po.built_in(name), name) for name in po.BUILT_IN_NAMES)
    assert [policy.name for policy in (cautious, trusting, paranoid)] == list(po.BUILT_IN_NAMES)
    assert {path.stem for path in po.BUILT_IN.glob("*.toml")} == set(po.BUILT_IN_NAMES)
    for policy in (cautious, trusting, paranoid):
        assert po.warning(policy) == ""
        assert decide(policy, case(origin="baseline")).verdict == "allow"
        assert decide(policy, case(found("patch", "high"))).verdict == "deny"
        assert decide(policy, case(found("isolation", "high"))).verdict == "ask"
        assert decide(policy, case(tier="verify")).verdict == "ask"
        assert decide(policy, case(cost=5_000.0)).verdict == "ask"
    medium = case(found("drift", "medium"))
    assert [decide(p, case()).verdict for p in (cautious, trusting, paranoid)] == ["ask", "allow", "ask"]
    assert [decide(p, medium).people for p in (cautious, trusting, paranoid)] == [1, 1, 2]
    assert decide(paranoid, case(moment=NIGHT)).expires_minutes > decide(paranoid, case()).expires_minutes
    assert (po.default_name("evolver"), po.default_name("models"), po.default_name("mixed")) == (
        "trusting", "cautious", "cautious",
    )  # fmt: skip
    with pytest.raises(PolicyError, match="did you mean cautious"):
        po.built_in("../cautios")


def test_the_comments_name_every_field_and_finding() -> None:
    words = po.built_in("cautious")
    for word in (*Rule.__struct_fields__, *po.KINDS):
        assert word in words


# --- errors ----------------------------------------------------------------------------------------------------------

RULE = '[[rule]]\nname = "a"\nthen = "ask"\n\n'


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("version = [", "1:12", "not valid TOML"),
        ("", "1:1", "must say version = 1"),
        ("\nversion = 2", "2:1", "version 2 is not known here"),
        ("version = '1'", "1:1", "must say version = 1"),
        (HEAD + "defualt = 'ask'", "3:1", "did you mean default?"),
        (HEAD + "[[rules]]", "3:3", "did you mean rule?"),
        (HEAD + "default = 'alow'", "3:1", "did you mean allow?"),
        (HEAD + "rule = 3", "3:1", "must be a list in [brackets], not a whole number"),
        (HEAD + RULE + '[[rule]]\nname = "b"\nthen = "ask"\norigins = ["model"]', "10:1", "did you mean origin?"),
        (HEAD + RULE + '[[rule]]\nname = "b"\n  then = "alow"', "9:3", "rule 2, then: 'alow' is not one of allow"),
        (HEAD + RULE + '[[rule]]\nname = "b"', "7:3", "rule 2: then is missing"),
        (HEAD + RULE + "origin = ['modle']", "7:1", "did you mean model?"),
        (HEAD + RULE + "tier = ['prob']", "7:1", "did you mean probe?"),
        (HEAD + RULE + "tier = 'probe'", "7:1", "must be a list in [brackets], not text"),
        (HEAD + RULE + "finding = ['imports']", "7:1", "did you mean import?"),
        (HEAD + RULE + "only_findings = ['quadrtic']", "7:1", "did you mean quadratic?"),
        (HEAD + RULE + "finding = []", "7:1", "an empty list matches nothing"),
        (HEAD + RULE + "severity = 'hihg'", "7:1", "did you mean high?"),
        (HEAD + RULE + "risk = ['R4']", "7:1", "R4 is always denied"),
        (HEAD + RULE + "risk = ['R0']", "7:1", "a rule can name R1, R2, R3"),
        (HEAD + RULE + "cpu_seconds_over = -1", "7:1", "must be at least 0"),
        (HEAD + RULE + "cpu_seconds_over = nan", "7:1", "must be at least 0"),
        (HEAD + RULE + "novelty_below = 2", "7:1", "must be at most 1"),
        (HEAD + RULE + "novelty_below = '2'", "7:1", "must be a number, not text"),
        (HEAD + RULE + "hours = '22-7'", "7:1", "is not a time of day such as 22:00-07:00"),
        (HEAD + RULE + "hours = '07:00-07:00'", "7:1", "is no time at all"),
        (HEAD + RULE + "days = ['Sat']", "7:1", "did you mean sat?"),
        (HEAD + RULE + "until = '2030-01-01'", "7:1", "without quotes"),
        (HEAD + RULE + "until = 12:00:00", "7:1", "must be a date"),
        (HEAD + RULE + "cpu_seconds_over = 9\ncpu_seconds_under = 8", "8:1", "swap them"),
        (HEAD + RULE + "severity = 'high'\nseverity_at_most = 'low'", "8:1", "nothing can match"),
        (HEAD + RULE + "expires_minutes = 0", "7:1", "must be more than 0"),
        (HEAD + "[[rule]]\nname = 'a'\nthen = 'allow'\nexpires_minutes = 3", "6:1", "is about requests"),
        (HEAD + "[[rule]]\nname = 'a'\nthen = 'ask(3 of 2)'", "5:1", "3 of 2 can never agree"),
        (HEAD + "[[rule]]\nname = 'a'\nthen = 'ask(0)'", "5:1", "from 1 to 20 people"),
        (HEAD + "[[rule]]\nname = 'R4: never'\nthen = 'ask'", "4:1", "choose another name"),
        (HEAD + '[[rule]]\nname = "a\\u001b[2J"\nthen = "ask"', "4:1", "printable"),
        (HEAD + "rule = [{name = 'a', then = 'ask'}, {name = 'b', then = 'asc'}]", "3:1", "rule 2, then"),
    ],
)
def test_errors_say_where_and_what(text: str, place: str, words: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    message = str(caught.value)
    assert message.startswith(f"policy.toml:{place}: "), message
    assert words in message
    assert message.isprintable()
    assert "`" not in message


def test_files_that_are_no_policy(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        po.load_policy(tmp_path / "policy.toml")
    (tmp_path / "policy.toml").write_bytes(b"version = 1\n# \xff")
    with pytest.raises(PolicyError, match=r"policy\.toml:2:3: not UTF-8"):
        po.load_policy(tmp_path / "policy.toml")


# --- warnings, and rules made of cases -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("default = 'allow'", ["allows everything"]),
        ("[[rule]]\nname = 'open'\nthen = 'allow'\n[[rule]]\nname = 'late'\nthen = 'deny'", ["allows everything", '"late"']),
        ("default = 'allow'\n[[rule]]\nname = 'b'\norigin = ['baseline']\nthen = 'ask'", ["allows everything"]),
        ("[[rule]]\nname = 'm'\norigin = ['model']\nthen = 'allow'", ["everything that comes from model"]),
        ("[[rule]]\nname = 'old'\ncpu_seconds_under = 5\nuntil = 2001-01-01\nthen = 'allow'", ['expired: "old"']),
        ("default = 'allow'\n[[rule]]\nname = 'old'\nuntil = 2001-01-01\nthen = 'ask'", ["allows everything", "expired"]),
        ("[[rule]]\nname = 'a'\nseverity = 'high'\nthen = 'ask'\n[[rule]]\nname = 'a'\nthen = 'ask'", ["more than one"]),
        ("[[rule]]\nname = 'all'\nthen = 'ask'\n[[rule]]\nname = 'never'\nthen = 'deny'", ['nothing comes past rule "all"']),
        ("default = 'allow'\n[[rule]]\nname = 'a'\nseverity = 'high'\nthen = 'deny'", []),
        ("[[rule]]\nname = 'all'\nuntil = 2099-01-01\nthen = 'ask'\n[[rule]]\nname = 'then'\nthen = 'deny'", []),
    ],
)
def test_what_is_odd_is_said(text: str, words: list[str]) -> None:
    said = po.warning(rules(text), NOON)
    assert all(word in said for word in words), said
    assert bool(said) == bool(words)


@settings(max_examples=150, deadline=None)
@given(POLICIES, CASES, st.text(max_size=120))
def test_a_rule_made_of_a_case_allows_it_and_nothing_worse(policy: Policy, asked: Case, name: str) -> None:
    rule = rule_for(asked, name)
    if po.risk_of(asked.findings) != "R1" or any(f.kind not in po.KINDS for f in asked.findings):
        assert rule == "", "what two people must decide is not waved through by one, nor what rules cannot name"
        return
    text = with_rule(HEAD + "# what follows matters\n" + RULE, rule)
    changed = parse_policy(text)
    assert "# what follows matters\n[[rule]]" in text
    assert [r.name for r in changed.rule][1:] == ["a"]
    assert decide(changed, asked).verdict == "allow"
    worse = [
        Case("control" if asked.origin != "control" else "model", asked.tier, asked.findings, asked.cpu_seconds),
        Case(asked.origin, "explore", asked.findings, asked.cpu_seconds),
        Case(asked.origin, asked.tier, asked.findings, asked.cpu_seconds * 1.2 + 10),
        Case(asked.origin, asked.tier, [*asked.findings, found("money" if asked.findings else "fft", "high")], 0.0),
    ]
    if po.SEVERITIES[-1] not in {f.severity for f in asked.findings}:
        assert decide(changed, worse[3]).rule == "a"
    assert all(decide(changed, case).rule == "a" for case in worse[:3])


def test_a_rule_goes_before_all_others_or_not_at_all() -> None:
    rule = rule_for(case(found("fft")), 'a "quoted" \\ näme\x1b\u2028')
    assert parse_policy(HEAD + rule).rule[0].name == 'a "quoted" \\ näme'
    for text in (HEAD, HEAD.rstrip(), po.built_in("cautious"), po.built_in("paranoid"), HEAD + 'note = """\n', ""):
        try:
            before = parse_policy(text)
        except PolicyError:
            with pytest.raises(PolicyError):
                with_rule(text, rule)
            continue
        after = parse_policy(with_rule(text, rule))
        assert after.rule[1:] == before.rule
        assert (after.name, after.default) == (f"{before.name}, changed", before.default)
        assert parse_policy(with_rule(with_rule(text, rule), rule)).name == after.name
    inline = HEAD + "rule = [{name = 'a', then = 'deny'}]"
    with pytest.raises(PolicyError, match=r"write each rule as a \[\[rule\]\] table"):
        with_rule(inline, rule)
    with pytest.raises(PolicyError, match="one .*rule"):
        with_rule(HEAD, rule + rule)
    with pytest.raises(PolicyError):
        with_rule(HEAD, 'default = "allow"\n' + rule)


# --- the command -----------------------------------------------------------------------------------------------------


def test_a_changed_policy_is_tried_on_the_record(tmp_path: Path) -> None:
    run = history.write_run(tmp_path / "data" / "asi" / "runs" / "tried", 12)
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}

    def asi(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "asi_tui.main", "policy", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    changed = tmp_path / "changed.toml"
    changed.write_text(po.built_in("cautious") + '\n[[rule]]\nname = "handed in"\norigin = ["person"]\nthen = "ask(2)"\n')
    ended = asi("check", str(changed), "tried")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert [line for line in lines if line.startswith("*")] == ["*   cautious: ask(2), by “handed in”"]
    assert lines[-3:] == [
        "10 proposals under policy: allow 0, ask 10, deny 0",
        "10 proposals under cautious: allow 0, ask 10, deny 0",
        "1 proposal would have gone another way, marked *",
    ]

    report = json.loads(asi("check", "trusting", "tried", "--json", "--last", "3").stdout)
    assert [one["experiment"] for one in report["proposals"]] == ["e0009", "e0010", "e0012"]
    assert {one["other"]["rule"] for one in report["proposals"]} == {"cheap and harmless"}
    assert all(one["differs"] and one["recorded"] == "cheap" for one in report["proposals"])
    assert all('"cheap and harmless" matches' in " ".join(one["other"]["because"]) for one in report["proposals"])

    changed.write_text(HEAD + "[[rule]]\nname = 'a'\nthen = 'alow'\n")
    for words in (("check", str(changed)), ("set", str(changed), "tried")):
        ended = asi(*words)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "changed.toml:5:1: " in ended.stderr
        assert "did you mean allow?" in ended.stderr
    ended = asi("set", "paranoid", "tried")
    assert (ended.returncode, "not running" in ended.stderr) == (3, True)
    assert asi("check", "nowhere").returncode == 2

    shown = asi("show", "tried").stdout
    assert parse_policy(shown) == Policy(1)
    assert parse_policy(asi("show", "paranoid").stdout) == parse_policy(po.built_in("paranoid"))
    assert all(name in asi("list").stdout for name in po.BUILT_IN_NAMES)
    (run / "policy.toml").write_text("version = [")
    assert parse_policy(asi("show", "tried").stdout) == Policy(1), "the one on record is in force, not the file"
