"""Every screen in every state as it is painted, compared with the pictures kept in `pictures/`.

`UPDATE_PICTURES=1 pytest tests/asi_tui/test_pictures.py` paints them anew; what changed is then read in the diff.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from asi_tui.app import SCREENS
from asi_tui.facts import Facts
from engine.client.connection import Lost
from engine.client.records import Latch
from store import events as ev
from tests.asi_tui.fakes import Fake, app_for
from tests.asi_tui.test_app import painted, settled, until

NOW = 1_790_000_000.0
PICTURES = Path(__file__).parent / "pictures"
SIZES = ((80, 24), (160, 45))
KEYS = {**{kind.NAME.lower(): shown for shown, kind in SCREENS}, "brief": "b", "help": "question_mark"}


def killed() -> Fake:
    """A run that somebody has killed."""
    fake = Fake().busy()
    fake.record(ev.RunKilled("person:ada", NOW, "it burns", 7, True))
    return fake


STATES: dict[str, Callable[[], Fake]] = {
    "empty": lambda: Fake().start(),
    "busy": lambda: Fake().busy(),
    "not connected": lambda: Fake().busy(),
    "killed": killed,
}


@pytest.fixture(autouse=True)
def still(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The clock stands, the place is Greenwich, the person is Ada."""
    monkeypatch.setattr(time, "time", lambda: NOW)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_picture(name: str, state: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    facts = Facts(None, Latch("person:ada", "it burns", NOW)) if state == "killed" else Facts(4242)
    monkeypatch.setattr("asi_tui.facts.look", lambda root: facts)
    fake = STATES[state]()
    app = app_for(fake, Path("/nowhere/quiet-heron"))
    app.emergency.witness, app.model.clock = "amber-newt", lambda: NOW
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        await pilot.press(KEYS[name])
        await settled(pilot)
        if state in ("not connected", "killed"):
            fake.connected = False
            fake.queue.put_nowait(Lost("no engine is running"))
            await until(pilot, lambda: not app.model.connected)
        await settled(pilot)
        found = "\n".join(line.rstrip() for line in painted(app)) + "\n"
    kept = PICTURES / f"{name}-{state.replace(' ', '-')}-{size[0]}x{size[1]}.txt"
    if os.environ.get("UPDATE_PICTURES"):
        kept.write_text(found)
    assert found == kept.read_text(), f"{kept.name} is painted differently; UPDATE_PICTURES=1 takes the new picture"
