"""What a run knows: papers and lessons together, contradicted lessons last, and entries added while it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from asi_tui.main import main
from cognition.library import papers
from engine import knowledge
from engine.client.rundir import RunPaths
from engine.laboratory import Laboratory
from engine.memory import Memory, contradictions, lessons, verdict
from engine.runtime import Runtime
from engine.supervision.deadman import DeadMan
from store import events as ev
from store.config import Deadman, RunConfig
from store.state import Experiment
from tests.store import history

ENTRY = 'identifier = "{}"\ntitle = "T"\nauthors = ["A"]\nyear = 2024\nscenario = "zebra stripes"\nmechanism = "m"\n'


def experiment(
    name: str, opened: float, change: str, sign: int, told: tuple[str, ...] = ("a lesson on parity",)
) -> Experiment:
    low, high = {1: (0.5, 1.5), -1: (-1.5, -0.5), 0: (-0.5, 0.5)}[sign]
    scored = ev.ExperimentScored(
        name, "probe", 1.0, 0.5, 1.5, 3, against_parent=(low + high) / 2, against_parent_low=low, against_parent_high=high
    )
    return Experiment(
        id=name, origin="agent", opened=opened, title=name, change=change, scored=scored, lessons=list(told)
    )


def test_the_sign_of_a_result() -> None:
    assert [verdict(experiment("a", 0, "x", sign)) for sign in (1, -1, 0)] == [1, -1, 0]
    assert verdict(Experiment(id="b", origin="agent")) == 0


def test_a_later_opposite_result_contradicts() -> None:
    made = [
        experiment("e1", 1, "gate: on → off", 1),
        experiment("e2", 2, "gate: on → off", 0),
        experiment("e3", 3, "Gate:  on → off", -1),
        experiment("e4", 4, "window: 0 → 16", -1),
        experiment("e5", 5, "", 1),
        experiment("e6", 6, "", -1),
    ]
    assert contradictions(made) == {"e1": "e3"}
    assert contradictions([*made, experiment("e7", 7, "gate: on → off", 1)]) == {"e3": "e7"}
    first = lessons("r", made)[-1]
    assert (first.id, first.contradicted_by) == ("e1/0", "e3")
    assert first.evidence == "run r, e1: score +1.00 [+0.50, +1.50]"


class House:
    """A laboratory with a memory over a made-up run."""

    def __init__(self, root: Path) -> None:
        self.runtime = Runtime(root, RunConfig(name="history"))
        nothing = cast(Any, None)
        self.folders = [root.parent / "own" / "cognition", root / "cognition"]
        self.memory = Memory(self.runtime.paths.vectors, self.runtime, folders=self.folders)
        self.laboratory = Laboratory(
            runtime=self.runtime, domain=nothing, runner=nothing, slots=nothing, halting=nothing,
            deadman=DeadMan(Deadman()), agent=nothing, policy=nothing, level="L2", data_hash="",
            recall=self.memory.recall, remember=self.memory.remember,
        )  # fmt: skip


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    root = history.write_run(tmp_path / "run", 20, seed=5)
    RunPaths(root).create()
    made = House(root)
    yield made
    await made.runtime.close()


async def test_papers_and_lessons_are_found_together(house: House) -> None:
    lesson = next(lesson for lesson in house.memory.all_lessons())
    found = await house.memory.search(f"{lesson.text} parity stays at chance", 8)
    assert {one.kind for one in found} == {"paper", "lesson"}
    assert all(one.why and one.text for one in found)
    assert all(one.source.startswith(f"{one.kind}: ") for one in found)
    strings = await house.memory.recall("parity stays at chance", 3)
    assert len(strings) == 3
    assert strings[0].startswith("[negative-eigenvalues] ")
    assert await house.memory.search(" ", 3) == []


async def test_a_contradicted_lesson_comes_after_its_contradiction(house: House) -> None:
    experiments = house.runtime.state.experiments
    experiments.clear()
    old = "zebra gate off helped zebra zebra"
    experiments["e1"] = experiment("e1", 1, "gate: on → off", 1, (old,))
    experiments["e2"] = experiment("e2", 2, "gate: on → off", -1, ("zebra gate off hurt",))
    found = [one for one in await house.memory.search(old, 50) if one.kind == "lesson"]
    assert [one.id for one in found] == ["e2/0", "e1/0"]
    assert "contradicted by the later e2" in found[1].why


async def test_the_knowledge_query(house: House) -> None:
    everything = await knowledge.search(house.laboratory, "", 0, 1_000)
    known = house.memory.all_lessons()
    assert [one.id for one in everything[: len(known)]] == [lesson.id for lesson in known]
    assert len(everything) == len(known) + len(papers())
    assert all(one.source.startswith(("paper: ", "lesson: ")) for one in everything)
    first = await knowledge.search(house.laboratory, "parity at chance", 0, 4)
    second = await knowledge.search(house.laboratory, "parity at chance", 4, 4)
    assert len(first) == 4
    assert not {one.id for one in first} & {one.id for one in second}
    assert "parity" in first[0].why


async def test_added_entries_are_taken_up_with_a_note(house: House) -> None:
    watching = asyncio.create_task(knowledge.watch(house.laboratory))
    notes: list[str] = []
    house.runtime.note = lambda text, level="info": notes.append(f"{level}: {text}")  # type: ignore[method-assign]
    try:
        await asyncio.sleep(0.3)
        house.folders[0].mkdir(parents=True)
        (house.folders[0] / "one-note.toml").write_text(ENTRY.format("one-note"))
        (house.folders[0] / "bad.toml").write_text("x")
        async with asyncio.timeout(20):
            while len(notes) < 2:
                await asyncio.sleep(0.05)
        assert notes[0] == "info: 1 entry added to what the run knows: one-note"
        assert notes[1].startswith("warning: not taken into what the run knows: bad.toml:1:")
        assert (await house.memory.search("zebra", 1))[0].id == "one-note"
        assert house.folders[1].is_dir()
        for name in ("two-note", "three-note"):
            (house.folders[1] / f"{name}.toml").write_text(ENTRY.format(name))
        async with asyncio.timeout(20):
            while not {"two-note", "three-note"} <= {e.identifier for e in await house.memory.entries()}:
                await asyncio.sleep(0.05)
        assert not watching.done()
        assert not any(note.startswith("warning") for note in notes[2:])
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text(ENTRY.format("my-zebra"))
    bad.write_text("identifier = \n")
    assert main(["cognition", "add", str(bad)]) == 2
    assert capsys.readouterr().err == "asi: nothing added: bad.toml:1:14: Invalid value\n"
    assert not (tmp_path / "data").exists()
    assert main(["cognition", "add", str(good)]) == 0
    assert main(["cognition", "add", str(good)]) == 2
    capsys.readouterr()
    assert main(["cognition", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert len(listed) == len(papers()) + 1
    assert main(["cognition", "search", "zebra", "stripes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["id"] == "my-zebra"
    assert main(["cognition", "search", "parity", "at", "chance"]) == 0
    assert capsys.readouterr().out.startswith("negative-eigenvalues ")
    assert main(["cognition", "show", "gated-deltanet"]) == 0
    assert "gated_delta_rule" in capsys.readouterr().out
    assert main(["cognition", "show", "no-such"]) == 2
    run = history.write_run(tmp_path / "run", 2, seed=1)
    assert main(["cognition", "add", str(good), str(run)]) == 0
    assert (run / "cognition" / "my-zebra.toml").is_file()
