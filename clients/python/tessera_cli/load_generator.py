"""Asking a server many questions at once, and how long each answer took."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import openai

from tessera_client.parts import Part
from tessera_client.session import session_headers


@dataclass(slots=True)
class Timing:
    """One question and what became of it; times are seconds since it was sent."""

    kind: str
    first_s: float | None = None
    """To the first piece of the answer."""
    gaps_s: list[float] = field(default_factory=list)
    """Between a piece and the one before; a piece is usually a token."""
    total_s: float = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    error: str | None = None
    """Why it was not answered."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked."""

    kind: str
    parts: list[Part]


@dataclass(frozen=True, slots=True)
class Run:
    """All questions of one level of concurrency."""

    concurrency: int
    duration_s: float
    timings: list[Timing]

    @property
    def answered(self) -> list[Timing]:
        """Those that were answered."""
        return [timing for timing in self.timings if timing.error is None]


async def ask_all(
    clients: Sequence[openai.AsyncOpenAI],
    model: str,
    questions: Sequence[Question],
    concurrency: int,
    fields: dict[str, Any],
) -> Run:
    """Ask all questions, so many at the same time; the next one goes out when one is answered.

    Args:
        clients: of one server or several, which get questions in turn; without retries, which would hide failures and
            spoil counts.
        model: what to ask.
        questions: in order.
        concurrency: at least 1.
        fields: of every request.
    """
    waiting = list(reversed(list(zip(questions, itertools.cycle(clients), strict=False))))
    timings: list[Timing] = []

    async def work() -> None:
        while waiting:
            question, client = waiting.pop()
            timings.append(await _ask(client, model, question, fields))

    began_s = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    return Run(concurrency, time.perf_counter() - began_s, timings)


async def _ask(client: openai.AsyncOpenAI, model: str, question: Question, fields: dict[str, Any]) -> Timing:
    timing = Timing(question.kind)
    messages: list[Any] = [{"role": "user", "content": question.parts}]
    sent_s = time.perf_counter()
    last_s = None
    try:
        events = await client.chat.completions.create(
            model=model,
            messages=messages,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=fields,
            extra_headers=session_headers(messages),
        )
        async for event in events:
            now_s = time.perf_counter()
            if event.usage is not None:
                timing.prompt_tokens = event.usage.prompt_tokens
                timing.answer_tokens = event.usage.completion_tokens
            if any(choice.delta.content or choice.finish_reason for choice in event.choices):
                if last_s is None:
                    timing.first_s = now_s - sent_s
                else:
                    timing.gaps_s.append(now_s - last_s)
                last_s = now_s
        if last_s is None:
            timing.error = "the answer has no pieces"
    except openai.APIStatusError as error:
        timing.error = f"status {error.status_code}"
    except openai.OpenAIError as error:
        timing.error = str(error) or type(error).__name__
    timing.total_s = time.perf_counter() - sent_s
    return timing
