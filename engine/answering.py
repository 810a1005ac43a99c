"""People's questions about experiments, and the Researcher's answers: at any time, beside the loop.

The question is an event of the person's; the answer is an agent's call of the experiment's transcript, with the same
record, retries and budgets as any other. What goes wrong is one line for the person, and nothing else: a question never
pauses a run and never changes an experiment.
"""

from __future__ import annotations

import asyncio
import time

import msgspec

from engine.agents.protocol import AgentFailed, AgentUnavailable, Answered, QuestionBrief
from engine.consulting import Consulting
from engine.halting import Refusal
from engine.laboratory import Laboratory, as_member
from engine.predictions import check_predictions
from store import events as ev
from store.audit import clean
from store.blobs import BlobError
from store.journal import JournalFailed
from store.state import Experiment

MOST_OPEN = 4
MOST_CHARACTERS = 2_000
PEOPLE = 200
"""So many programs of the ranking are told of, best first."""
SECONDS = 300.0
"""An answer that takes longer is given up."""

ROLE = "researcher"


class Unanswered(Exception):
    """There is no answer; the message is one line that says why."""


class Answering:
    """The questions of one run: one at a time about an experiment, and four in all."""

    def __init__(self, laboratory: Laboratory) -> None:
        self.lab, self.runtime = laboratory, laboratory.runtime
        self._open: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, experiment: str, who: str, question: str) -> str:
        """Put a question on record and have it answered in the background; returns a line for the person.

        Raises:
            Refusal: it cannot be asked.
        """
        entry, text = self._check(experiment, question)
        self._open.add(entry.id)
        try:
            await self._asked(entry, who, text)
        except BaseException:
            self._open.discard(entry.id)
            raise
        task = asyncio.create_task(self._work(entry, who, text))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return f"asked about {entry.id}; the answer comes into its transcript"

    async def answer(self, experiment: str, who: str, question: str) -> str:
        """Put a question on record and wait for its answer.

        Raises:
            Refusal: it cannot be asked.
            Unanswered: there is no answer.
        """
        entry, text = self._check(experiment, question)
        self._open.add(entry.id)
        try:
            await self._asked(entry, who, text)
            return await self._answer(entry, text)
        finally:
            self._open.discard(entry.id)

    async def close(self) -> None:
        """Give up what is not answered yet."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _check(self, experiment: str, question: str) -> tuple[Experiment, str]:
        """The experiment and the question as it is asked. Raises `Refusal`."""
        entry = self.runtime.state.experiments.get(experiment)
        if entry is None:
            raise Refusal(f"there is no experiment {clean(experiment, 60)!r}; asi ps lists them")
        text = clean(question, MOST_CHARACTERS + 1).strip()
        if not text:
            raise Refusal("the question is empty")
        if len(text) > MOST_CHARACTERS:
            raise Refusal(f"a question has at most {MOST_CHARACTERS:,} characters")
        if not entry.program:
            raise Refusal(f"{entry.id} is not written yet; ask when there is a program")
        if entry.id in self._open:
            raise Refusal(f"a question about {entry.id} is being answered; its transcript shows it")
        if len(self._open) >= MOST_OPEN:
            raise Refusal(f"{MOST_OPEN} questions are being answered; ask again when one of them is")
        return entry, text

    async def _asked(self, entry: Experiment, who: str, text: str) -> None:
        await self.runtime.commit(ev.QuestionAsked(entry.id, who, text), f"person:{who or 'unknown'}")

    async def _work(self, entry: Experiment, who: str, text: str) -> None:
        try:
            await self._answer(entry, text)
        except JournalFailed:
            pass  # the engine leaves, and says why
        except Unanswered as error:
            self.runtime.note(f"no answer for {clean(who, 60)} about {entry.id}: {error}", "warning")
        finally:
            self._open.discard(entry.id)

    async def _answer(self, entry: Experiment, text: str) -> str:
        """Raises `Unanswered`."""
        one = Consulting(self.lab, entry.id)
        try:
            brief = await self._brief(one, text)
            async with asyncio.timeout(SECONDS):
                if one.agent.keeps_record:
                    return (await one.agent.answer(brief, one.say(ROLE))).text
                return (await _on_record(one, brief)).text
        except (AgentFailed, AgentUnavailable) as error:
            raise Unanswered(clean(str(error), 300)) from None
        except TimeoutError:
            raise Unanswered(f"the Researcher took longer than {SECONDS:.0f} s") from None
        except (BlobError, OSError) as error:
            raise Unanswered(f"what it is about cannot be read: {clean(str(error), 300)}") from None

    async def _brief(self, one: Consulting, question: str) -> QuestionBrief:
        state, entry = self.runtime.state, one.entry
        parent = state.experiments.get(entry.parent)
        ranked = [e for e in state.ranking() if e.id not in (entry.id, entry.parent)]
        return QuestionBrief(
            experiment=entry.id,
            seed=entry.seed,
            question=question,
            own=await one.member(entry),
            parent=await one.member(parent) if parent is not None and parent.program else None,
            stands=_stands(entry),
            motivation=entry.motivation,
            hypothesis=entry.hypothesis,
            change=entry.change,
            predictions=entry.predictions,
            outcomes=entry.outcomes or check_predictions(state, entry),
            findings=entry.findings,
            summary=entry.summary,
            population=[as_member(e, "") for e in ranked[:PEOPLE]],
        )


async def _on_record(one: Consulting, brief: QuestionBrief) -> Answered:
    """Consult an agent that keeps no record of its own."""
    call = await one.call(ROLE, msgspec.json.encode(brief).decode())
    started = time.monotonic()
    try:
        answered = await one.agent.answer(brief, one.say(ROLE))
    except Exception as error:
        seconds = round(time.monotonic() - started, 3)
        line = f"{type(error).__name__}: {error}"[:300]
        one.runtime.emit(ev.AgentReplied(call, one.id, ROLE, "", seconds, False, error=line))
        raise AgentFailed(line) from error
    await one.reply(call, ROLE, answered.text, started)
    return answered


def _stands(entry: Experiment) -> str:
    """How far an experiment has come, in a few words."""
    if not entry.open:
        return f"closed, {entry.outcome}{f': {entry.reason}' if entry.reason else ''}"[:300]
    words = {"gate": "it waits at the gate and has not run", "train": "it is in training", "analyse": "it was measured"}
    return words.get(entry.step, f"it has not run; the next step is {entry.step}")
