"""Deltas folded into an answer, and the same deltas as chunks."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_executor.engine import Delta, PositionLogprobs, TokenLogprob
from model_executor.processor.tokenizer import Tokenizer, UserText
from server.chat.response import Report
from server.generation.output import Answer, UnfinishedAnswerError
from tests.support.fakes import say

END = 151_645


def answer(tokenizer: Tokenizer, **changes: Any) -> Answer:
    options: dict[str, Any] = {
        "id_": "chatcmpl-1",
        "created": 7,
        "model": "m",
        "num_choices": 1,
        "num_prompt_tokens": 10,
        "num_image_tokens": 4,
        "num_video_tokens": 2,
        "num_top_logprobs": None,
        "include_usage": False,
        "report": None,
        "tokenizer": tokenizer,
        "end_token_ids": (END,),
        **changes,
    }
    return Answer(**options)


def folded(made: Answer, deltas: list[Delta]) -> dict[str, Any]:
    for delta in deltas:
        made.add(delta)
    result: dict[str, Any] = json.loads(made.completion().encode())
    return result


def chunked(made: Answer, deltas: list[Delta]) -> list[dict[str, Any]]:
    chunks = [chunk for delta in deltas for chunk in made.chunks(delta)]
    last = made.last_chunk()
    return [json.loads(chunk.encode()) for chunk in [*chunks, *([last] if last else [])]]


def test_the_whole_answer_has_the_standard_form(tokenizer: Tokenizer) -> None:
    assert folded(answer(tokenizer), say("Hel", "lo", finish="length")) == {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "length",
            }
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 2,
            "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 0, "image_tokens": 4, "video_tokens": 2},
        },
    }


def test_chunks_have_the_standard_form(tokenizer: Tokenizer) -> None:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "m"}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}

    assert chunked(answer(tokenizer), say("Hel", "lo")) == [
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk({}, "stop"),
    ]


def test_usage_is_null_until_the_last_chunk(tokenizer: Tokenizer) -> None:
    *chunks, last = chunked(answer(tokenizer, include_usage=True), say("Hel", "lo"))
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 12


def test_deltas_without_text_make_no_chunk(tokenizer: Tokenizer) -> None:
    chunks = chunked(answer(tokenizer), say("", "a", "", ""))
    assert [chunk["choices"][0]["delta"] for chunk in chunks[1:]] == [{"content": "a"}, {}]


def test_cached_tokens_are_those_of_the_prompt(tokenizer: Tokenizer) -> None:
    deltas = [Delta(0, "a", [1], num_cached_tokens=8), Delta(0, "", [2], finish_reason="stop", num_cached_tokens=8)]
    assert folded(answer(tokenizer), deltas)["usage"]["prompt_tokens_details"]["cached_tokens"] == 8


@pytest.mark.parametrize("include_usage", [False, True])
def test_the_report_is_on_the_last_chunk_only(tokenizer: Tokenizer, include_usage: bool) -> None:
    made = answer(tokenizer, report=Report(media=[]), include_usage=include_usage, num_choices=2)
    chunks = chunked(made, [*say("a"), *say("b", index=1)])
    assert [index for index, chunk in enumerate(chunks) if "tessera" in chunk] == [len(chunks) - 1]
    whole = answer(tokenizer, report=Report(media=[]))
    assert folded(whole, say("a"))["tessera"] == {"media": []}


def test_an_engine_that_ends_early_is_a_fault(tokenizer: Tokenizer) -> None:
    made = answer(tokenizer, num_choices=2)
    for delta in say("a"):
        made.add(delta)
    with pytest.raises(UnfinishedAnswerError):
        made.completion()
    with pytest.raises(UnfinishedAnswerError):
        made.last_chunk()


def position(token_id: int, logprob: float, *top: tuple[int, float]) -> PositionLogprobs:
    return PositionLogprobs(TokenLogprob(token_id, logprob), [TokenLogprob(*one) for one in top])


def test_logprobs_have_tokens_and_their_bytes(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode([UserText("é𓂀")], []).token_ids
    assert len(ids) > 2  # the hieroglyph is spread over tokens
    positions = [position(id_, -0.5, (id_, -0.5), (100, float("-inf"))) for id_ in ids]
    deltas = [
        Delta(0, "é𓂀", ids, logprobs=positions),
        Delta(0, "", [END], logprobs=[position(END, -0.1)], finish_reason="stop"),
    ]
    content = folded(answer(tokenizer, num_top_logprobs=1), deltas)["choices"][0]["logprobs"]["content"]
    assert b"".join(bytes(entry["bytes"]) for entry in content).decode() == "é𓂀"
    assert content[0]["token"] == "é"
    assert all(len(entry["top_logprobs"]) == 1 for entry in content)
    streamed = chunked(answer(tokenizer, num_top_logprobs=1), deltas)
    joined = [entry for chunk in streamed if (found := chunk["choices"][0]["logprobs"]) for entry in found["content"]]
    assert joined == content


def test_minus_infinity_and_not_a_number_become_json(tokenizer: Tokenizer) -> None:
    top = [(2, float("-inf")), (3, float("nan"))]
    deltas = [Delta(0, "a", [1], logprobs=[position(1, float("-inf"), *top)], finish_reason="length")]
    (entry,) = folded(answer(tokenizer, num_top_logprobs=2), deltas)["choices"][0]["logprobs"]["content"]
    assert entry["logprob"] == -9999.0
    assert [one["logprob"] for one in entry["top_logprobs"]] == [-9999.0, -9999.0]


@given(
    st.lists(
        st.lists(st.text(max_size=4), min_size=1, max_size=5).map(tuple),
        min_size=1,
        max_size=4,
    ),
    st.randoms(use_true_random=False),
)
def test_joined_chunks_equal_the_whole_answer(tokenizer: Tokenizer, texts: list[tuple[str, ...]], random: Any) -> None:
    queues = [say(*choice, index=index) for index, choice in enumerate(texts)]
    deltas = []
    while any(queues):
        deltas.append(random.choice([queue for queue in queues if queue]).pop(0))
    whole = folded(answer(tokenizer, num_choices=len(texts)), deltas)
    chunks = chunked(answer(tokenizer, num_choices=len(texts)), deltas)
    for index, choice in enumerate(whole["choices"]):
        own = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert "".join(chunk["delta"].get("content", "") for chunk in own) == choice["message"]["content"]
        assert [chunk["finish_reason"] for chunk in own if chunk["finish_reason"]] == [choice["finish_reason"]]
