"""Researcher, novelty, Engineer and Analyst as language models: one conversation each, mended at most once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from engine.agents.llm import loose, prompts, replies
from engine.agents.llm.calls import TOO_LONG, Caller, Overflow, Purpose
from engine.agents.llm.client import Message, Request
from engine.agents.llm.reading import Completion
from engine.agents.protocol import (
    AgentFailed,
    Analysis,
    AnalysisBrief,
    Answered,
    Draft,
    Fix,
    Judgement,
    NoveltyBrief,
    ProposalBrief,
    QuestionBrief,
    RepairBrief,
    Say,
)
from engine.runtime import Runtime
from store.audit import clean
from store.config import Agents

CONTINUATIONS = 2
QUOTED = 6_000
"""So much of an answer that cannot be used is shown to the model again."""
CALM = 0.2
"""The highest temperature for those who judge and explain."""

MOST_OVERLAP, LEAST_OVERLAP = 200, 8
_FENCE = re.compile(r"^\s*```[\w+-]*\n")

Brief = ProposalBrief | RepairBrief | NoveltyBrief | AnalysisBrief | QuestionBrief

T = TypeVar("T")
Render = Callable[[int], list[Message]]
Read = Callable[[str], T]


class _Conversation(Generic[T]):
    """What is known of one answer while it comes, possibly in several pieces."""

    def __init__(self, read: Read[T]) -> None:
        self._read = read
        self.value: T | None = None
        self.problem = ""
        self.cut = False

    def look(self, so_far: str, completion: Completion, left: int) -> str:
        """Read what there is; returns what is wrong with it. Blocking: an answer can be long."""
        self.cut, self.problem = False, ""
        whole = _joined(so_far, completion.text)
        try:
            self.value = self._first(whole, completion.text)
        except replies.Unusable as error:
            self.problem = self._why(completion, str(error))
            if completion.finish == "length" and left and completion.text.strip():
                self.cut, self.problem = True, "cut off at agents.max_tokens; it is asked to go on"
        return self.problem

    def _first(self, whole: str, piece: str) -> T:
        try:
            return self._read(whole)
        except replies.Unusable:
            if piece == whole:
                raise
            return self._read(piece)  # it began anew instead of going on

    def _why(self, completion: Completion, problem: str) -> str:
        if completion.finish == TOO_LONG:
            return "the answer is far too long"
        if completion.finish == "length":
            return f"the answer was cut off at agents.max_tokens ({problem})"
        if completion.refusal and not completion.text.strip():
            return f"the model refuses: {clean(completion.refusal, 160)}"
        if completion.tools and not completion.text.strip():
            return "the model called a tool, and there are none"
        if completion.finish == "content_filter":
            return f"the server withheld the answer: content filter ({problem})"
        return problem


class Models:
    """An `Agent` made of language models. `models`: the name for each role, empty for whichever the server has."""

    keeps_record = True
    judges = True

    def __init__(self, runtime: Runtime, caller: Caller, config: Agents, models: dict[str, str]) -> None:
        self._runtime, self._caller, self._config, self._models = runtime, caller, config, models
        self.name = models["researcher"] or "models"

    def seed_genome(self, baseline: str) -> str:
        """None: models read programs."""
        return ""

    async def propose(self, brief: ProposalBrief, say: Say) -> Draft:
        """Have the Researcher draft a child of the parent."""
        tasks = [task.name for task in brief.tasks]

        def read(text: str) -> tuple[Draft, list[str]]:
            return replies.draft(text, brief.parent.source, tasks)

        draft, remarks = await self._consult(
            "researcher", brief, say, lambda room: prompts.researcher(brief, room), read, tasks
        )
        for remark in remarks:
            say(f"\n[{remark}]\n")
        return draft

    async def repair(self, brief: RepairBrief, say: Say) -> Fix:
        """Have the Engineer mend a program."""
        return await self._consult(
            "engineer", brief, say, lambda room: prompts.engineer(brief, room),
            lambda text: replies.fix(text, brief.program),
        )  # fmt: skip

    async def judge(self, brief: NoveltyBrief, say: Say) -> Judgement:
        """Have the novelty role say whether a proposal repeats a neighbour."""
        known = [neighbour.id for neighbour in brief.neighbours]
        return await self._consult(
            "novelty", brief, say, lambda room: prompts.novelty(brief, room),
            lambda text: replies.judgement(text, known),
        )  # fmt: skip

    async def analyse(self, brief: AnalysisBrief, say: Say) -> Analysis:
        """Have the Analyst explain a result."""
        return await self._consult("analyst", brief, say, lambda room: prompts.analyst(brief, room), replies.analysis)

    async def answer(self, brief: QuestionBrief, say: Say) -> Answered:
        """Have the Researcher answer a person, whatever the run's state; trouble with it never pauses the run."""
        purpose = await self._purpose(brief, "researcher", aside=True)
        room, model = self._config.context_tokens - self._config.max_tokens, self._models["researcher"]
        try:
            messages = await asyncio.to_thread(prompts.question, brief, room)
            request = Request(
                model or await self._caller.first_model(purpose), messages, min(CALM, self._config.temperature),
                self._config.max_tokens, _seed(purpose),
            )  # fmt: skip
            return await self._converse(purpose, request, say, replies.answered)
        except (prompts.DoesNotFit, Overflow) as error:
            raise AgentFailed(f"the question does not fit into the model's context: {error}") from None

    # --- one consultation ---------------------------------------------------------------------------------------------

    async def _consult(
        self, role: str, brief: Brief, say: Say, render: Render,
        read: Read[T], tasks: Sequence[str] = (),
    ) -> T:  # fmt: skip
        """An answer that can be used; with half the prompt where the model's context is smaller than was said.

        Raises:
            AgentFailed: no usable answer.
            AgentUnavailable: the run was paused.
        """
        purpose = await self._purpose(brief, role)
        room = self._config.context_tokens - self._config.max_tokens
        shape = replies.schema(role, tasks)
        model = self._models[role] or await self._caller.first_model()
        for budget in (room, room // 2):
            try:
                messages = await asyncio.to_thread(render, budget)
            except prompts.DoesNotFit as error:
                if role != "researcher" and budget == room:
                    raise AgentFailed(str(error)) from None
                await self._caller.unavailable(f"{error}; a model with more context and agents.context_tokens help")
            request = Request(
                model, messages, self._temperature(role), self._config.max_tokens, _seed(purpose), role, shape
            )  # fmt: skip
            try:
                return await self._converse(purpose, request, say, read)
            except Overflow as error:
                say(f"\n[the prompt is too long for the model ({error})]\n")
        name = clean(model, 80)
        await self._caller.unavailable(f"{name} takes no prompt of {room // 2} tokens; set agents.context_tokens")

    async def _purpose(self, brief: Brief, role: str, aside: bool = False) -> Purpose:
        sha = await self._runtime.put(msgspec.json.encode(brief).decode())
        return Purpose(brief.experiment, role, sha, aside)

    def _temperature(self, role: str) -> float:
        wanted = self._config.temperature
        return wanted if role in ("researcher", "engineer") else min(CALM, wanted)

    async def _converse(self, purpose: Purpose, request: Request, say: Say, read: Read[T]) -> T:
        """Ask; where the answer cannot be used, say why and ask once more."""
        for last in (False, True):
            conversation = _Conversation(read)
            text = await self._whole(purpose, request, say, conversation)
            if conversation.value is not None:
                return conversation.value
            if last or not request.schema:
                raise AgentFailed(conversation.problem)
            say(f"\n[not usable: {conversation.problem}]\n")
            shown = text if len(text) <= QUOTED else text[: QUOTED // 2] + "\n[…]\n" + text[-QUOTED // 2 :]
            turns = [Message("assistant", shown or "(nothing)"), Message("user", prompts.again(conversation.problem))]
            request = msgspec.structs.replace(request, messages=[*request.messages, *turns])
        raise AssertionError("the last round returns or raises")

    async def _whole(self, purpose: Purpose, request: Request, say: Say, conversation: _Conversation[T]) -> str:
        """One answer with its continuations; what can be read of it is in the conversation afterwards."""
        text = ""
        for left in range(CONTINUATIONS, -1, -1):
            so_far = text

            def check(completion: Completion, so_far: str = so_far, left: int = left) -> str:
                return conversation.look(so_far, completion, left)

            completion = await self._caller.ask(purpose, request, say, check)
            text = _joined(so_far, completion.text)
            if not conversation.cut:
                return text
            turns = [Message("assistant", completion.text), Message("user", prompts.go_on())]
            request = msgspec.structs.replace(request, messages=[*request.messages, *turns])
        return text


def _seed(purpose: Purpose) -> int:
    """The seed of a request, from what it is about."""
    return int(purpose.brief[:7], 16)


def _joined(before: str, after: str) -> str:
    """An answer and its continuation; models repeat a few words, or open the fence again."""
    if not before:
        return after
    after = _FENCE.sub("", loose.without_thoughts(after), count=1)
    for size in range(min(MOST_OVERLAP, len(before), len(after)), LEAST_OVERLAP, -1):
        if before.endswith(after[:size]):
            return before + after[size:]
    return before + after
