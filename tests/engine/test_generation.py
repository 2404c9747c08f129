"""Sampling, stopping, aborting and counting, with the real engine."""

import asyncio
import math
import secrets
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from model_executor.client.engine_client import EngineClient
from model_executor.engine import (
    EngineBusyError,
    MediaItem,
    Prompt,
    RequestFailedError,
    RequestRefusedError,
    SamplingParams,
)
from model_executor.ipc import WINDOW
from tests.support.images import plain
from tests.support.oracle import Oracle, Still
from tests.support.prompts import collect, conversations, ids_of, prompt_of, text_of
from tests.support.waiting import until

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def prompt(other_oracle: Oracle, shared_memory: Path) -> Prompt:
    return prompt_of(other_oracle, conversations()["text"], shared_memory)


@pytest.fixture
def seen(other_oracle: Oracle, shared_memory: Path) -> Prompt:
    """A prompt with a picture nobody has sent before."""
    color = f"#{secrets.token_hex(3)}"
    return prompt_of(other_oracle, [("user", [Still(plain(224, 224, color)), "What is it?"])], shared_memory)


async def test_a_host_does_not_load_what_it_never_uses(engine: EngineClient) -> None:
    mapped = Path(f"/proc/{engine.process_id}/maps").read_text("utf-8")
    assert "/torch/" in mapped
    assert "/scipy/" not in mapped and "/sklearn/" not in mapped


async def test_seed_repeats_and_choices_of_one_seed_differ(engine: EngineClient, prompt: Prompt) -> None:
    limits = SamplingParams(max_tokens=8, n=3, seed=11, temperature=1.0, ignore_eos=True)
    first, second = await collect(engine, prompt, limits), await collect(engine, prompt, limits)
    choices = [tuple(ids_of(first, index)) for index in range(3)]
    assert len(set(choices)) == 3
    assert choices == [tuple(ids_of(second, index)) for index in range(3)]
    for index in range(3):
        reasons = [delta.finish_reason for delta in first if delta.index == index]
        assert reasons[-1] == "length" and set(reasons[:-1]) <= {None}
    other = await collect(engine, prompt, msgspec.structs.replace(limits, seed=12))
    assert [tuple(ids_of(other, index)) for index in range(3)] != choices


async def check_prompt_logprobs(engine: EngineClient, oracle: Oracle, ids: list[int]) -> None:
    limits = SamplingParams(max_tokens=1, temperature=0, logprobs=2, prompt_logprobs=2)
    first, *others = await collect(engine, Prompt(ids), limits)
    assert first.prompt_logprobs is not None and not any(delta.prompt_logprobs for delta in others)
    assert [position.sampled.token_id for position in first.prompt_logprobs] == ids[1:]
    expected = oracle.prompt_logprobs(ids)
    told = [position.sampled.logprob for position in first.prompt_logprobs]
    assert told == pytest.approx([float(expected[at, token_id]) for at, token_id in enumerate(ids[1:])], abs=1e-3)
    for position, likely in zip(first.prompt_logprobs, expected.topk(2).values.tolist(), strict=True):
        assert [entry.logprob for entry in position.top] == pytest.approx(likely, abs=1e-3)


async def test_logprobs_of_a_prompt_are_those_of_transformers(
    engine: EngineClient, other_oracle: Oracle, prompt: Prompt
) -> None:
    await check_prompt_logprobs(engine, other_oracle, prompt.token_ids)
    await check_prompt_logprobs(engine, other_oracle, prompt.token_ids)  # the prefix cache must not shorten them


async def test_logprobs_of_a_prompt_that_is_computed_in_steps(
    cramped_engine: EngineClient, oracle: Oracle, prompt: Prompt
) -> None:
    await check_prompt_logprobs(cramped_engine, oracle, prompt.token_ids * 8)


async def test_the_first_delta_of_several_choices_has_the_logprobs_of_their_prompt(
    engine: EngineClient, prompt: Prompt
) -> None:
    limits = SamplingParams(max_tokens=2, n=3, temperature=1.0, seed=1, logprobs=0, prompt_logprobs=0)
    first, *_ = await collect(engine, prompt, limits)
    assert len(first.prompt_logprobs or []) == len(prompt.token_ids) - 1


async def test_logprobs_hold_the_sampled_token_and_the_likeliest_in_order(engine: EngineClient, prompt: Prompt) -> None:
    deltas = await collect(engine, prompt, SamplingParams(max_tokens=12, temperature=1.0, seed=3, logprobs=5))
    positions = [position for delta in deltas for position in delta.logprobs or []]
    assert [position.sampled.token_id for position in positions] == ids_of(deltas)
    for position in positions:
        likely = [entry.logprob for entry in position.top]
        assert len(likely) == 5 and likely == sorted(likely, reverse=True)
        assert sum(map(math.exp, likely)) <= 1 + 1e-6
        assert position.sampled.logprob <= likely[0] + 1e-6


async def test_no_logprobs_unless_asked(engine: EngineClient, prompt: Prompt) -> None:
    assert all(d.logprobs is None for d in await collect(engine, prompt, SamplingParams(max_tokens=2)))
    sampled_only = await collect(engine, prompt, SamplingParams(max_tokens=2, logprobs=0))
    assert [p.top for d in sampled_only for p in d.logprobs or []] == [[], []]


async def test_stops_at_end_token_unless_told_to_ignore_it(
    engine: EngineClient, prompt: Prompt, other_oracle: Oracle
) -> None:
    (end,) = other_oracle.tokenizer.encode("<|im_end|>")
    limits = SamplingParams(max_tokens=3, temperature=0, logit_bias={end: 100.0})
    deltas = await collect(engine, prompt, limits)
    assert (ids_of(deltas), text_of(deltas), deltas[-1].finish_reason) == ([end], "", "stop")
    ignoring = await collect(engine, prompt, msgspec.structs.replace(limits, ignore_eos=True))
    assert (ids_of(ignoring), ignoring[-1].finish_reason) == ([end] * 3, "length")


async def test_stops_at_string_and_leaves_it_out(engine: EngineClient, prompt: Prompt) -> None:
    whole = text_of(await collect(engine, prompt, SamplingParams(max_tokens=16, temperature=0)))
    stop = whole[len(whole) // 2 :][:6]
    deltas = await collect(engine, prompt, SamplingParams(max_tokens=16, temperature=0, stop=[stop]))
    assert text_of(deltas) == whole[: whole.index(stop)]
    assert deltas[-1].finish_reason == "stop"


async def test_refuses_ids_outside_the_vocabulary(engine: EngineClient, prompt: Prompt) -> None:
    with pytest.raises(RequestRefusedError):
        await collect(engine, prompt, SamplingParams(max_tokens=1, stop_token_ids=[10**9]))
    with pytest.raises(RequestRefusedError):
        await collect(engine, Prompt([10**9]), SamplingParams(max_tokens=1))
    with pytest.raises(RequestRefusedError):
        await collect(engine, Prompt([100] * engine.max_model_len), SamplingParams(max_tokens=1))


@dataclass(frozen=True)
class Spoiled:
    """A medium that does not fit its prompt."""

    field: str
    change: int


@pytest.mark.parametrize("spoiled", [Spoiled("num_tokens", -1), Spoiled("offset", 1), Spoiled("offset", -1)], ids=str)
async def test_placeholders_off_by_one_never_reach_the_model(
    engine: EngineClient, seen: Prompt, spoiled: Spoiled
) -> None:
    item = seen.media[0]
    wrong = msgspec.structs.replace(item, **{spoiled.field: getattr(item, spoiled.field) + spoiled.change})
    with pytest.raises(RequestFailedError, match="placeholder"):
        await collect(engine, Prompt(seen.token_ids, [wrong]), SamplingParams(max_tokens=1))
    with pytest.raises(RequestFailedError, match="belong to no media item"):
        await collect(engine, Prompt(seen.token_ids), SamplingParams(max_tokens=1))


async def test_reads_no_file_outside_the_shared_memory(engine: EngineClient, seen: Prompt, tmp_path: Path) -> None:
    item = seen.media[0]
    outside = tmp_path / "rows"
    outside.write_bytes(Path(item.path).read_bytes())
    link = Path(item.path).with_suffix(".link")
    link.symlink_to(outside)

    async def ask(changed: MediaItem) -> None:
        with pytest.raises(RequestFailedError):
            await collect(engine, Prompt(seen.token_ids, [changed]), SamplingParams(max_tokens=1))

    for path in (str(outside), str(link), item.path + ".missing", item.path + "/../../../../etc/passwd"):
        await ask(msgspec.structs.replace(item, path=path))
    Path(item.path).write_bytes(b"too short")
    await ask(item)


async def test_abort_ends_the_request_in_the_engine(engine: EngineClient, prompt: Prompt) -> None:
    limits = SamplingParams(max_tokens=20_000, temperature=0, ignore_eos=True)
    answers = [engine.generate(secrets.token_hex(8), prompt, limits) for _ in range(3)]
    await asyncio.gather(*(anext(answer) for answer in answers))
    assert (await engine.stats()).num_running == 3
    await asyncio.gather(*(answer.aclose() for answer in answers))
    async with asyncio.timeout(60):  # a second on an idle machine
        while (await engine.stats()).num_running:
            await asyncio.sleep(0.02)


async def test_media_may_be_deleted_as_soon_as_the_request_was_given_up(
    engine: EngineClient, other_oracle: Oracle, shared_memory: Path
) -> None:
    turns = conversations()["photo of a megapixel"]
    for delay_s in (0.0, 0.02, 0.1):
        prompt = prompt_of(other_oracle, turns, shared_memory)
        unseen = msgspec.structs.replace(prompt.media[0], digest=secrets.token_hex(32))
        answer = engine.generate(secrets.token_hex(8), Prompt(prompt.token_ids, [unseen]), SamplingParams(max_tokens=1))
        first = asyncio.ensure_future(anext(answer))
        await asyncio.sleep(delay_s)
        first.cancel()
        await asyncio.wait({first})
        Path(unseen.path).unlink()
    assert ids_of(await collect(engine, Prompt([100, 200]), SamplingParams(max_tokens=1, temperature=0)))


async def test_refuses_what_the_waiting_room_cannot_hold(engine: EngineClient, prompt: Prompt) -> None:
    limits = SamplingParams(max_tokens=20_000, temperature=0, ignore_eos=True)
    crowd = [engine.generate(secrets.token_hex(8), prompt, limits) for _ in range(12)]
    started = [asyncio.ensure_future(anext(answer)) for answer in crowd]
    await until(lambda: len([task for task in started if task.done()]) == 8)
    with pytest.raises(EngineBusyError):
        await collect(engine, prompt, SamplingParams(max_tokens=1))
    reading = await engine.stats()
    assert (reading.num_running, reading.num_waiting) == (8, 4)
    for task in started:
        task.cancel()
    await asyncio.wait(started)
    await asyncio.gather(*(answer.aclose() for answer in crowd))
    assert len(await collect(engine, prompt, SamplingParams(max_tokens=1))) == 1


async def test_slow_reader_gets_everything_and_holds_nobody_up(engine: EngineClient, prompt: Prompt) -> None:
    limits = SamplingParams(max_tokens=6 * WINDOW, temperature=0, ignore_eos=True)
    whole = await collect(engine, prompt, limits)
    slow = engine.generate(secrets.token_hex(8), prompt, limits)
    first = await anext(slow)
    assert text_of(await collect(engine, prompt, limits)) == text_of(whole)
    rest = [delta async for delta in slow]
    assert text_of([first, *rest]) == text_of(whole)
    assert ids_of([first, *rest]) == ids_of(whole)
    assert len(rest) < len(whole) - 1, "additions past the window come merged"


async def test_statistics_tell_caches_apart(engine: EngineClient, seen: Prompt) -> None:
    limits = SamplingParams(max_tokens=1, temperature=0)
    readings = []
    queried = (await engine.stats()).encoder_cache_queries
    for salt in ("one", "two", "two"):
        await collect(engine, Prompt(seen.token_ids, seen.media, salt), limits)
        queried += 1
        async with asyncio.timeout(60):
            while (await engine.stats()).encoder_cache_queries < queried:
                await asyncio.sleep(0.02)
        readings.append(await engine.stats())
    queries = [reading.encoder_cache_queries for reading in readings]
    hits = [reading.encoder_cache_hits for reading in readings]
    assert [queries[1] - queries[0], queries[2] - queries[1]] == [1, 1]
    assert [hits[1] - hits[0], hits[2] - hits[1]] == [1, 1], "another tenant's prefix is not shared, the embedding is"
    assert readings[1].prompt_tokens - readings[0].prompt_tokens == len(seen.token_ids)
    assert readings[2].generation_tokens - readings[1].generation_tokens == 1
    assert readings[2].prefix_cache_queries > readings[1].prefix_cache_queries
