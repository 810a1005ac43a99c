"""Desktop notifications: which terminals get them, what they hold, and how often."""

from __future__ import annotations

import pytest

from asi_tui.alerts import Alerts, sequence, style_for
from engine.client.protocol import Records
from store import events as ev
from store.state import RunState
from tests.store import history


def records(*told: ev.Event) -> Records:
    return Records([history.seal_record(1, 0.0, "engine", event, "")[0] for event in told])


@pytest.mark.parametrize(
    ("environment", "style"),
    [
        ({"TERM": "xterm-256color"}, "off"),
        ({"TERM": "xterm-kitty"}, "osc9"),
        ({"TERM": "foot"}, "osc777"),
        ({"TERM": "tmux-256color", "LC_TERMINAL": "iTerm2", "TMUX": "x"}, "osc9"),
    ],
)
def test_only_terminals_that_are_known_to_show_them_get_them(environment: dict[str, str], style: str) -> None:
    assert style_for(environment) == style
    told = sequence("asi: r", "R1 waits; 2 in all", "auto", environment)
    assert bool(told) == (style != "off")
    assert sequence("asi: r", "x", "off", environment) == ""
    if style == "osc777":
        assert told == "\x1b]777;notify;asi: r;R1 waits, 2 in all\x07"
    if "TMUX" in environment:
        assert told == "\x1bPtmux;\x1b\x1b]9;asi: r: R1 waits, 2 in all\x07\x1b\\"


def test_nothing_in_a_text_ends_the_sequence() -> None:
    told = sequence("a\x07b", "c\x1b\\d\x9c", "osc9", {})
    assert told.startswith("\x1b]9;")
    assert told.endswith("\x07")
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in told[1:-1])


def test_one_a_minute_of_each_kind_and_the_latest_is_shown() -> None:
    alerts, state = Alerts(), RunState()
    asked = [ev.ApprovalRequested(f"R{number}", "e1", "p", "probe", "", 0.0) for number in range(3)]
    alerts.take(records(*asked), state)
    alerts.take(records(ev.BudgetExceeded("tokens", 1.0, 1.0, True)), state)
    assert sorted(one.text.split()[0] for one in alerts.due(1000.0)) == ["R2", "tokens"]
    alerts.take(records(asked[0]), state)
    assert alerts.due(1030.0) == []
    assert [one.text.split()[0] for one in alerts.due(1061.0)] == ["R0"]
    assert alerts.due(1200.0) == []
