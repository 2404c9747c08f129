"""What a Tessera server counted meanwhile, from its `/metrics`, beside what was counted here."""

import asyncio
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import openai

from tessera_cli.load_generator import Timing

SETTLE_S = 3.0
"""How long the server's counters may take to follow: a request is counted after its last byte."""

CACHES = ("media", "encoder", "prefix")
"""Prepared media (items), the engine's cache of encoded media (items), and its cache of computed prompts (tokens)."""

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
    caches: dict[str, tuple[int, int]]
    """Of each cache, what it had and what was looked up."""


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


async def read_all(clients: Sequence[openai.AsyncOpenAI]) -> list[ServerCounts] | None:
    """What each server has counted; None where one of them has no counts."""
    found = [await read(client) for client in clients]
    known = [counts for counts in found if counts is not None]
    return known if len(known) == len(found) else None


async def settled(
    clients: Sequence[openai.AsyncOpenAI], before: Sequence[ServerCounts], here: Counts
) -> list[ServerCounts] | None:
    """Each server's difference to `before`, once their sum is what was counted here, or after `SETTLE_S`."""
    differences: list[ServerCounts] = []
    for _ in range(10):
        after = await read_all(clients)
        if after is None:
            return None
        differences = [_difference(later, earlier) for later, earlier in zip(after, before, strict=True)]
        if total(differences).http == here:
            break
        await asyncio.sleep(SETTLE_S / 10)
    return differences


def total(counts: Sequence[ServerCounts]) -> ServerCounts:
    """The sum over servers; of at least one."""
    summed = counts[0]
    for more in counts[1:]:
        caches = {
            name: (had + more.caches[name][0], n + more.caches[name][1]) for name, (had, n) in summed.caches.items()
        }
        summed = ServerCounts(_plus(summed.http, more.http), _plus(summed.engine, more.engine), caches)
    return summed


def parse(text: str) -> ServerCounts | None:
    """The counts of a page in Prometheus' text format; None where it is no Tessera server's. Pure."""
    samples = [(name, labels, float(value)) for name, labels, value in _SAMPLE.findall(text)]

    def summed(name: str, *wanted: str) -> int | None:
        values = [value for found, labels, value in samples if found == name and all(each in labels for each in wanted)]
        return int(sum(values)) if values else None

    if not any(name.startswith("tessera_") for name, _, _ in samples):
        return None
    requests = summed("tessera_http_requests_total", 'route="/v1/chat/completions"', 'status="2xx"') or 0
    prompt, answer = summed("tessera_request_prompt_tokens_sum"), summed("tessera_request_generation_tokens_sum")
    engine = Counts(None, summed("tessera_prompt_tokens_total"), summed("tessera_generation_tokens_total"))
    caches = {}
    for cache in CACHES:
        had = summed(f"tessera_{cache}_cache_hits_total") or 0
        queries, misses = summed(f"tessera_{cache}_cache_queries_total"), summed(f"tessera_{cache}_cache_misses_total")
        caches[cache] = (had, queries if queries is not None else had + (misses or 0))
    return ServerCounts(Counts(requests, prompt, answer), engine, caches)


def _difference(after: ServerCounts, before: ServerCounts) -> ServerCounts:
    caches = {
        name: (had - before.caches[name][0], n - before.caches[name][1]) for name, (had, n) in after.caches.items()
    }
    return ServerCounts(_minus(after.http, before.http), _minus(after.engine, before.engine), caches)


def _minus(after: Counts, before: Counts) -> Counts:
    return _each(after, before, operator.sub)


def _plus(one: Counts, other: Counts) -> Counts:
    return _each(one, other, operator.add)


def _each(one: Counts, other: Counts, of_both: Callable[[int, int], int]) -> Counts:
    def result(name: str) -> int | None:
        first, second = getattr(one, name), getattr(other, name)
        return None if first is None or second is None else of_both(first, second)

    return Counts(result("requests"), result("prompt_tokens"), result("answer_tokens"))
