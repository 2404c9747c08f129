"""`echo`: an answer begins with its prompt; with `logprobs`, it reports every token of it, as likelihood tests need."""

from typing import Any

import httpx
import pytest

from model_executor.engine import Delta, PositionLogprobs, Prompt, SamplingParams, TokenLogprob
from model_executor.processor.tokenizer import Tokenizer, UserText
from tests.support.events import events
from tests.support.fakes import MODEL, FakeEngine, Step
from tests.support.world import OpenWorld

TEXT = "Once é, 🦊"


def likelihood(token_id: int) -> float:
    """A made-up log-probability that tells tokens apart."""
    return -(token_id % 97) / 7


def position(token_id: int, num_top: int) -> PositionLogprobs:
    top = [TokenLogprob(0, -0.001)] if num_top else []
    return PositionLogprobs(TokenLogprob(token_id, likelihood(token_id)), top)


def scoring(prompt: Prompt, limits: SamplingParams) -> list[Step]:
    """Says `!`; the prompt's tokens are scored where that is requested, on the first delta."""
    steps: list[Step] = []
    for index in range(limits.n):
        scored = None
        if limits.prompt_logprobs is not None and not index:
            scored = [position(token_id, limits.prompt_logprobs) for token_id in prompt.token_ids[1:]]
        said = None if limits.logprobs is None else [position(0, limits.logprobs)]
        steps.append(Delta(index, "!", [0], said, finish_reason="length", prompt_logprobs=scored))
    return steps


async def ask(open_world: OpenWorld, **fields: Any) -> httpx.Response:
    async with open_world(engine=FakeEngine(script=scoring)) as world:
        response = await world.client.post(
            "/v1/completions", json={"model": MODEL, "prompt": TEXT, "max_tokens": 1, "echo": True, **fields}
        )
    assert response.status_code == 200, response.text
    return response


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode([UserText(text)], []).token_ids


async def test_an_answer_begins_with_its_prompt(open_world: OpenWorld, tokenizer: Tokenizer) -> None:
    ids = [*ids_of(tokenizer, "a b"), tokenizer.special_id("<|im_end|>")]
    answer = (await ask(open_world, prompt=TEXT, n=2)).json()
    assert [choice["text"] for choice in answer["choices"]] == [f"{TEXT}!"] * 2
    assert [choice["logprobs"] for choice in answer["choices"]] == [None, None]
    assert answer["usage"]["completion_tokens"] == 2
    answer = (await ask(open_world, prompt=[ids, ids_of(tokenizer, "c")])).json()
    assert [choice["text"] for choice in answer["choices"]] == ["a b<|im_end|>!", "c!"]


@pytest.mark.parametrize("stream", [False, True])
async def test_every_token_is_told(open_world: OpenWorld, tokenizer: Tokenizer, stream: bool) -> None:
    response = await ask(open_world, logprobs=1, stream=stream)
    chunks = events(response) if stream else [response.json()]
    told: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for chunk in chunks:
        for name, values in (chunk["choices"][0]["logprobs"] or {}).items():
            told[name] += values
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == f"{TEXT}!"
    ids = [*ids_of(tokenizer, TEXT), 0]
    assert len(told["tokens"]) == len(ids) and told["tokens"][0] == "Once" and told["tokens"][-1] == "!"
    assert told["token_logprobs"] == [None, *(pytest.approx(likelihood(token_id)) for token_id in ids[1:])]
    assert told["top_logprobs"][0] is None
    assert all(max(top.values()) == -0.001 or "!" in top for top in told["top_logprobs"][1:])
    done = [b"".join(map(tokenizer.token_bytes, ids[:number])).decode("utf-8", "ignore") for number in range(len(ids))]
    assert told["text_offset"] == [len(text) for text in done]


async def test_every_choice_tells_the_same_prompt(open_world: OpenWorld) -> None:
    first, second = (await ask(open_world, logprobs=1, n=2)).json()["choices"]
    assert first["logprobs"] == second["logprobs"] and len(first["logprobs"]["tokens"]) > 2


async def test_likelihoods_as_lm_eval_sums_them(open_world: OpenWorld, tokenizer: Tokenizer) -> None:
    contexts, whole = [ids_of(tokenizer, "The sky is"), ids_of(tokenizer, "Two and two are")], []
    for context, end in zip(contexts, (" blue", " four, not five"), strict=True):
        whole.append([*context, *ids_of(tokenizer, end)])
    answer = (await ask(open_world, prompt=whole, logprobs=1, temperature=0, seed=1234)).json()
    for choice, context, ids in zip(
        sorted(answer["choices"], key=lambda one: one["index"]), contexts, whole, strict=True
    ):
        # As `LocalCompletionsAPI.parse_logprobs` does: everything behind the context, without the generated token.
        scored = choice["logprobs"]["token_logprobs"][len(context) : -1]
        tops = choice["logprobs"]["top_logprobs"][len(context) : -1]
        assert sum(scored) == pytest.approx(sum(map(likelihood, ids[len(context) :])))
        assert all(one in top.values() for one, top in zip(scored, tops, strict=True))


async def test_only_an_echo_scores_its_prompt(open_world: OpenWorld) -> None:
    async with open_world(engine=FakeEngine(script=scoring)) as world:
        for fields in ({"logprobs": 1}, {"echo": True}, {"echo": True, "logprobs": 2}):
            await world.client.post("/v1/completions", json={"model": MODEL, "prompt": "a", **fields})
        assert [limits.prompt_logprobs for limits in world.engine.limits] == [None, None, 2]
