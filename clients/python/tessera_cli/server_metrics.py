"""What a Tessera server counted meanwhile, from its `/metrics`, beside what was counted here."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

import openai

from tessera_cli.load_generator import Timing

SETTLE_S = 3.0
"""How long the server's counters may take to follow: a request is counted after its last byte."""

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? ([0-9.e+-]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Counts:
    """Answered requests and their tokens; None where they were not counted."""

    requests: int | None
    prompt_tokens: int | None
    answer_tokens: int | None


@dataclass(frozen=True, slots=True)
class ServerCounts:
    """A reading of both places in the server that count."""

    http: Counts
    """Chat requests with status 2xx and their tokens, as the HTTP process answered them."""
    engine: Counts
    """Tokens as the engine computed them, or took from its cache."""


def counted_here(timings: Sequence[Timing]) -> Counts:
    """The sums over what was answered."""
    done = [timing for timing in timings if timing.error is None]
    return Counts(len(done), sum(timing.prompt_tokens for timing in done), sum(timing.answer_tokens for timing in done))


async def read(client: openai.AsyncOpenAI) -> ServerCounts | None:
    """What the server has counted since its start; None where it is no Tessera server."""
    root = str(client.base_url).rstrip("/").removesuffix("/v1")
    try:
        return parse(await client.get(f"{root}/metrics", cast_to=str))
    except openai.OpenAIError:
        return None


async def settled(client: openai.AsyncOpenAI, before: ServerCounts, here: Counts) -> ServerCounts | None:
    """The difference to `before`, once it has reached what was counted here, or after `SETTLE_S`."""
    difference = None
    for _ in range(10):
        after = await read(client)
        if after is None:
            return None
        difference = ServerCounts(_minus(after.http, before.http), _minus(after.engine, before.engine))
        if difference.http == here:
            break
        await asyncio.sleep(SETTLE_S / 10)
    return difference


def parse(text: str) -> ServerCounts | None:
    """The counts of a page in Prometheus' text format; None where it is no Tessera server's. Pure."""
    samples = [(name, labels, float(value)) for name, labels, value in _SAMPLE.findall(text)]

    def total(name: str, *wanted: str) -> int | None:
        values = [value for found, labels, value in samples if found == name and all(each in labels for each in wanted)]
        return int(sum(values)) if values else None

    if not any(name.startswith("tessera_") for name, _, _ in samples):
        return None
    requests = total("tessera_http_requests_total", 'route="/v1/chat/completions"', 'status="2xx"') or 0
    prompt, answer = total("tessera_request_prompt_tokens_sum"), total("tessera_request_generation_tokens_sum")
    engine = Counts(None, total("tessera_prompt_tokens_total"), total("tessera_generation_tokens_total"))
    return ServerCounts(Counts(requests, prompt, answer), engine)


def _minus(after: Counts, before: Counts) -> Counts:
    def difference(name: str) -> int | None:
        later, earlier = getattr(after, name), getattr(before, name)
        return None if later is None or earlier is None else later - earlier

    return Counts(difference("requests"), difference("prompt_tokens"), difference("answer_tokens"))
