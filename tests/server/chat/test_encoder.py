"""Output events as Chat has them: one completion, and the same as chunks."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_executor.engine import Delta, MediaItem, Prompt
from model_executor.processor.tokenizer import Tokenizer, UserText
from server.chat.encoder import ChunkEncoder, CompletionEncoder
from server.chat.reader import read_request
from server.chat.request import ChatCompletionRequest
from server.generation.output import OutputReader
from server.generation.output_events import GenerationEnd, GenerationStart, OutputEvent
from tests.support.fakes import say
from tests.support.outputs import END, position, reader

MEDIA = [MediaItem("image", (1, 4, 4), 1, 4, "", ""), MediaItem("video", (2, 2, 2), 6, 2, "", "")]
PROMPT = Prompt(list(range(10)), MEDIA)


def request(**changes: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate(
        {"model": "m", "messages": [{"role": "user", "content": "x"}], **changes}
    )


def events(made: OutputReader, deltas: list[Delta]) -> list[OutputEvent]:
    grown = [event for delta in deltas for event in made.read(0, delta)]
    return [GenerationStart(made.usage(), ()), *grown, GenerationEnd(made.usage())]


def folded(tokenizer: Tokenizer, deltas: list[Delta], **changes: Any) -> dict[str, Any]:
    body = request(**changes)
    generation = read_request(body, "")
    made = CompletionEncoder(body, generation)
    for event in events(reader(tokenizer, PROMPT, generation), deltas):
        made.add(event)
    result: dict[str, Any] = json.loads(made.completion().encode())
    return result


def chunked(tokenizer: Tokenizer, deltas: list[Delta], **changes: Any) -> list[dict[str, Any]]:
    body = request(stream=True, **changes)
    generation = read_request(body, "")
    made = ChunkEncoder(body, generation)
    grown = events(reader(tokenizer, PROMPT, generation), deltas)
    return [json.loads(sent.data) for event in grown for sent in made.encode(event)]


def without_head(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer without what is new every time."""
    assert answer["id"].startswith("chatcmpl-") and answer["created"] > 1_700_000_000
    return {name: value for name, value in answer.items() if name not in ("id", "created")}


def test_the_whole_answer_has_the_standard_form(tokenizer: Tokenizer) -> None:
    assert without_head(folded(tokenizer, say("Hel", "lo", finish="length"))) == {
        "object": "chat.completion",
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
    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {"object": "chat.completion.chunk", "model": "m", "choices": [choice]}

    chunks = chunked(tokenizer, say("Hel", "lo"))
    assert [without_head(one) for one in chunks] == [
        chunk({"role": "assistant", "content": "", "refusal": None}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk({}, "stop"),
    ]
    assert len({(one["id"], one["created"]) for one in chunks}) == 1


def test_usage_is_null_until_the_last_chunk(tokenizer: Tokenizer) -> None:
    *chunks, last = chunked(tokenizer, say("Hel", "lo"), stream_options={"include_usage": True})
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 12


def test_deltas_without_text_make_no_chunk(tokenizer: Tokenizer) -> None:
    chunks = chunked(tokenizer, say("", "a", "", ""))
    assert [chunk["choices"][0]["delta"] for chunk in chunks[1:]] == [{"content": "a"}, {}]


@pytest.mark.parametrize("include_usage", [False, True])
def test_the_report_is_on_the_last_chunk_only(tokenizer: Tokenizer, include_usage: bool) -> None:
    options = {"include_usage": include_usage}
    chunks = chunked(tokenizer, [*say("a"), *say("b", index=1)], include=["media"], n=2, stream_options=options)
    assert [index for index, chunk in enumerate(chunks) if "tessera" in chunk] == [len(chunks) - 1]
    assert folded(tokenizer, say("a"), include=["media"])["tessera"] == {"media": []}


def test_logprobs_have_tokens_and_their_bytes(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode([UserText("é𓂀")], []).token_ids
    assert len(ids) > 2  # the hieroglyph is spread over tokens
    positions = [position(id_, -0.5, (id_, -0.5), (100, float("-inf"))) for id_ in ids]
    deltas = [
        Delta(0, "é𓂀", ids, logprobs=positions),
        Delta(0, "", [END], logprobs=[position(END, -0.1)], finish_reason="stop"),
    ]
    wishes = {"logprobs": True, "top_logprobs": 1}
    content = folded(tokenizer, deltas, **wishes)["choices"][0]["logprobs"]["content"]
    assert b"".join(bytes(entry["bytes"]) for entry in content).decode() == "é𓂀"
    assert content[0]["token"] == "é"
    assert all(len(entry["top_logprobs"]) == 1 for entry in content)
    chunks = [chunk["choices"][0]["logprobs"] for chunk in chunked(tokenizer, deltas, **wishes)]
    assert [entry for logprobs in chunks if logprobs for entry in logprobs["content"]] == content


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
    whole = folded(tokenizer, deltas, n=len(texts))
    chunks = chunked(tokenizer, deltas, n=len(texts))
    for index, choice in enumerate(whole["choices"]):
        own = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert "".join(chunk["delta"].get("content", "") for chunk in own) == choice["message"]["content"]
        assert [chunk["finish_reason"] for chunk in own if chunk["finish_reason"]] == [choice["finish_reason"]]
