"""Screen 3: streams, blocks, roles, searching, everything at once; a hundred thousand lines without a wait."""

from __future__ import annotations

import time
import unicodedata

import pytest

from asi_tui.longtext import LINE_LIMIT, Document, Line, LongText, pieces_of
from asi_tui.screens.experiment import ExperimentScreen
from asi_tui.screens.transcripts import TranscriptsScreen
from asi_tui.streams import STREAM_LINES, Streams
from engine.client import protocol
from store import events as ev
from tests.asi_tui.fakes import Fake, app_for
from tests.asi_tui.test_app import painted, picture, settled, until
from tests.asi_tui.test_safe import HOSTILE, harmless


class Single:
    """A document of one text."""

    key = "one"
    dropped = 0

    def __init__(self, text: LongText) -> None:
        self.text = text

    def __len__(self) -> int:
        return len(self.text)

    def line(self, index: int) -> Line:
        return Line(self.text.line(index), "", (("│ ", ""),))

    def raw(self, index: int) -> str:
        return self.text.lines[index]


def talked(text: str = "") -> Fake:
    """A run in which two agents have answered for an experiment of their own."""
    fake = Fake(text).busy()
    fake.record(ev.ExperimentOpened("e0100", "model", "b0"))
    for number, role in enumerate(("researcher", "engineer"), 1):
        prompt = fake.blob(f"pr{number}", f"the {role}'s question\nwith a needle in it {text}")
        reply = fake.blob(f"re{number}", f"the {role}'s answer\nfirst\nsecond {text}")
        fake.record(ev.AgentCalled(f"c{number}", "e0100", role, "model-x", prompt))
        fake.record(ev.AgentReplied(f"c{number}", "e0100", role, reply, 3.0))
    fake.train("e0100", "0" * 64, 0)
    return fake


# --- long texts ------------------------------------------------------------------------------------------------------


def test_pieces_make_the_same_lines_as_the_whole() -> None:
    text = "one\ntwo two\r\n\nfour\n" + "x" * 30 + "\nlast"
    whole = LongText(text).lines
    for size in (1, 2, 3, 7):
        grown = LongText()
        for start in range(0, len(text), size):
            grown.append(text[start : start + size].replace("\r", ""))
        assert grown.lines == whole == text.replace("\r\n", "\n").split("\n")


def test_a_line_without_end_is_bounded_and_says_so() -> None:
    grown = LongText()
    for _ in range(1_000):
        grown.append("x" * 1_000)
    assert len(grown.lines[0]) == LINE_LIMIT
    assert grown.line(0).endswith(f"{1_000_000 - LINE_LIMIT:,} more characters")
    assert LongText("y" * 1_000_000 + "\nz").line(0).endswith("more characters")


def test_a_stream_keeps_its_newest_lines() -> None:
    grown = LongText("", 1_000)
    for number in range(5_000):
        grown.append(f"{number}\n")
    assert grown.lines[-1] == "4999"
    assert len(grown) <= 1_000
    assert grown.dropped + len(grown) == 5_000


@pytest.mark.parametrize("text", [*HOSTILE.values(), "線形 attention " * 30, "wörter " * 40, "x" * 500])
def test_pieces_are_clean_and_fit(text: str) -> None:
    from rich.cells import cell_len

    for width in (8, 20, 79):
        for piece in pieces_of(text, width):
            assert harmless(piece)
            assert cell_len(piece) <= width


def test_moving_down_and_up_again_ends_where_it_began() -> None:
    document = Document([Single(LongText("\n".join("word " * (n % 40) for n in range(500))))])
    place = (0, 0)
    seen = [place]
    for _ in range(30):
        place = document.move(*place, 17, 40)
        seen.append(place)
    for before in reversed(seen[:-1]):
        place = document.move(*place, -17, 40)
        assert place == before


def test_a_hundred_thousand_lines_open_and_turn_at_once() -> None:
    text = "\n".join(f"line {n} " + "words of a log, long enough to be wrapped, ö 線形 " * 3 for n in range(100_000))
    begin = time.perf_counter()
    document = Document([Single(LongText(text))])
    place = document.last(80, 46)
    document.rows(*place, 80, 46)
    assert time.perf_counter() - begin < 0.7  # measured: 0.06 s
    begin = time.perf_counter()
    for _ in range(20):
        place = document.move(*place, -46, 80)
        document.rows(*place, 80, 46)
    assert (time.perf_counter() - begin) / 20 < 0.01  # measured: 0.001 s


def test_streams_are_bounded_and_told_apart_by_role() -> None:
    streams = Streams()
    for number in range(STREAM_LINES + 5_000):
        streams.take(protocol.LiveText("e1", "engineer", f"{number}\n"), 1.0)
    streams.take(protocol.LiveText("e1", "analyst", "x"), 2.0)
    assert [one.role for one in streams.of("e1")] == ["engineer", "analyst"]
    assert len(streams.of("e1")[0].text) <= STREAM_LINES
    streams.clear()
    assert "e1" not in streams


# --- the screen ------------------------------------------------------------------------------------------------------


async def test_a_stream_is_appended_to_and_not_built_again() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("3")
        await settled(pilot)
        text = app.model.texts.of("e0009")[0].text
        fake.queue.put_nowait(protocol.LiveText("e0009", "engineer", "half a li"))
        fake.queue.put_nowait(protocol.LiveText("e0009", "engineer", "ne\n"))
        await until(pilot, lambda: "half a line" in picture(app))
        assert app.model.texts.of("e0009")[0].text is text


async def test_prompts_are_folded_until_one_unfolds_them() -> None:
    app = app_for(talked())
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        app.read("e0100")
        await until(pilot, lambda: "the researcher's answer" in picture(app))
        assert "researcher's question" not in picture(app)
        await pilot.press("t")
        await until(pilot, lambda: "researcher's question" in picture(app))
        await pilot.press("enter")
        await until(pilot, lambda: "researcher's question" not in picture(app))
        await pilot.press("z")
        await settled(pilot)
        assert "researcher's answer" not in picture(app)


async def test_a_click_on_a_head_folds_it() -> None:
    app = app_for(talked())
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        app.read("e0100")
        await until(pilot, lambda: "the engineer's answer" in picture(app))
        y = next(y for y, line in enumerate(painted(app)) if "engineer" in line and "reply" in line)
        await pilot.click(offset=(20, y))
        await until(pilot, lambda: "the engineer's answer" not in picture(app))


async def test_roles_are_cycled_through_up_to_what_trials_print() -> None:
    app = app_for(talked())
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        app.read("e0100")
        await until(pilot, lambda: "engineer's answer" in picture(app))
        await pilot.press("r")
        await until(pilot, lambda: "researcher only" in picture(app) and "engineer's answer" not in picture(app))
        await pilot.press("r", "r")
        await until(pilot, lambda: "trial output only" in picture(app) and "step 1 of e0100-s0" in picture(app))
        await pilot.press("r")
        await until(pilot, lambda: "only" not in painted(app)[1])


async def test_a_search_goes_into_folded_blocks_and_back() -> None:
    app = app_for(talked())
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot)
        app.read("e0100")
        await until(pilot, lambda: "engineer's answer" in picture(app))
        await pilot.press("/")
        await settled(pilot)
        await pilot.press(*"needle", "enter")
        await until(pilot, lambda: "with a needle" in picture(app) and "researcher's question" in picture(app))
        assert "engineer's question" not in picture(app)
        await pilot.press("n")
        await until(pilot, lambda: "engineer's question" in picture(app))
        await pilot.press("N")
        await settled(pilot)
        line = next(line for line in painted(app) if line.startswith("▸"))
        assert "needle" in line
        assert painted(app).index(next(one for one in painted(app) if "researcher's question" in one)) + 1 == painted(
            app
        ).index(line)


async def test_everything_tells_the_engine_from_agents() -> None:
    fake = talked()
    app = app_for(fake)
    async with app.run_test(size=(110, 40)) as pilot:
        await settled(pilot)
        await pilot.press("3", "e")
        fake.queue.put_nowait(protocol.LiveText("e0005", "analyst", "engine     armed: all is safe\n"))
        fake.send(ev.NoteAdded("a note of the engine", "warning"))
        await until(pilot, lambda: "a note of the engine" in picture(app))
        lines = painted(app)
        forged = next(line for line in lines if "all is safe" in line)
        honest = next(line for line in lines if "a note of the engine" in line)
        assert "analyst" in forged
        assert "│ engine     armed" in forged
        assert "engine" in honest
        assert honest.rindex("│") < honest.index("engine")
        await pilot.press("e")
        await settled(pilot)
        assert "everything ─" not in picture(app)


async def test_the_list_chooses_and_x_opens_the_experiment() -> None:
    app = app_for(talked())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("3", "tab", "g")
        await until(pilot, lambda: "everything, in the order" in picture(app))
        await pilot.press("down", "down", "enter")
        await settled(pilot)
        screen = app.screen
        assert isinstance(screen, TranscriptsScreen)
        assert screen.chosen == "e0009"
        await pilot.press("x")
        await settled(pilot)
        assert isinstance(app.screen, ExperimentScreen)
        await pilot.press("t")
        await settled(pilot)
        assert isinstance(app.screen, TranscriptsScreen)


async def test_blocks_are_stepped_through() -> None:
    app = app_for(talked())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        app.read("e0100")
        await until(pilot, lambda: "engineer's answer" in picture(app))
        screen = app.screen
        assert isinstance(screen, TranscriptsScreen)
        await pilot.press("right", "l")
        assert screen.block.startswith("reply researcher")
        await pilot.press("h")
        assert screen.block.startswith("prompt researcher")
        for key in ("pagedown", "pageup", "G", "g", "j", "k", "ctrl+d", "ctrl+u", "f", "f"):
            await pilot.press(key)


async def test_a_long_stream_scrolls_and_stays_where_one_reads() -> None:
    fake = Fake().busy()
    app = app_for(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("3")
        fake.queue.put_nowait(protocol.LiveText("e0009", "engineer", "".join(f"row {n}\n" for n in range(15_000))))
        await until(pilot, lambda: "row 14999" in picture(app))
        await pilot.press("pageup")
        await settled(pilot)
        before = painted(app)[2:-1]
        # Old lines are dropped at the beginning; what is being read stays where it is.
        fake.queue.put_nowait(protocol.LiveText("e0009", "engineer", "".join(f"new {n}\n" for n in range(8_000))))
        await settled(pilot)
        assert painted(app)[3:-1] == before[1:]


async def test_an_empty_run_says_so() -> None:
    app = app_for(Fake().start())
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot)
        await pilot.press("3")
        await settled(pilot)
        await pilot.press("tab", "e", "r", "t", "f")
        assert app.is_running


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
async def test_hostile_text_is_inert(text: str) -> None:
    hostile = text.encode("utf-8", "replace").decode()
    fake = talked(hostile)
    app = app_for(fake)
    async with app.run_test(size=(120, 40)) as pilot:
        await settled(pilot)
        app.read("e0100")
        await settled(pilot)
        for keys in (["z", "z"], ["r", "r", "r"], ["e"], ["tab"]):
            await pilot.press(*keys)
            await settled(pilot)
            shown = picture(app)
            assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs") or c == "\n" for c in shown)
            assert len(painted(app)) == 40


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (160, 45), (200, 50), (250, 70)])
async def test_every_size(size: tuple[int, int]) -> None:
    app = app_for(talked())
    async with app.run_test(size=size) as pilot:
        await settled(pilot)
        for keys in (["3"], ["tab"], ["tab"], ["e"], ["e", "z"]):
            await pilot.press(*keys)
            await settled(pilot)
            assert len(painted(app)) == size[1]
            assert "STOP" in painted(app)[-1]


async def test_twenty_thousand_experiments_are_no_burden() -> None:
    fake = Fake().busy()
    for number in range(20_000):
        fake.record(ev.ExperimentOpened(f"x{number:05}", "evolver", "b0"))
        fake.record(ev.ProposalDrafted(f"x{number:05}", "a title", "why", "what", "0" * 64))
    app = app_for(fake)
    async with app.run_test(size=(160, 45)) as pilot:
        await settled(pilot)
        await pilot.press("3")
        await settled(pilot)
        screen = app.screen
        assert isinstance(screen, TranscriptsScreen)
        begin = time.perf_counter()
        for _ in range(10):
            screen.body(160, 43)
        assert (time.perf_counter() - begin) / 10 < 0.05
