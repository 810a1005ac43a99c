"""What a call may cost at the most, before it is made, and what it did cost, after."""

from __future__ import annotations

import msgspec

from engine.agents.llm.client import Request
from engine.agents.llm.prompts import count, count_messages
from engine.agents.llm.reading import Completion
from store.config import Agents

MILLION = 1e6


class Usage(msgspec.Struct):
    """Tokens read and written."""

    read: int = 0
    written: int = 0

    def add(self, other: Usage) -> None:
        """Count what one more attempt used."""
        self.read += other.read
        self.written += other.written


def most(request: Request) -> Usage:
    """The most that a request can use."""
    return Usage(count_messages(request.messages), request.max_tokens)


def used(request: Request, completion: Completion) -> Usage:
    """What an answer used: the server's word, an upper estimate where it said nothing. Never zero."""
    read = completion.tokens_in or count_messages(request.messages)
    seen = count(completion.text) + count(completion.refusal) + completion.hidden // 3
    return Usage(read, completion.tokens_out or seen)


def cost(usage: Usage, config: Agents) -> float:
    """In money. A price that is not known counts as nothing: with a cap on money, such a run was refused."""
    price = max(0.0, config.price_in) * usage.read + max(0.0, config.price_out) * usage.written
    return price / MILLION
