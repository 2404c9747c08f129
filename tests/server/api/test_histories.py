"""Histories as other servers and clients leave them: taken, and the model sees what it would see without the rest."""

from typing import Any

import pytest

from tests.support.world import ServerFixture

HI = {"role": "user", "content": "Hi."}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "5"}
ANSWER: dict[str, Any] = {"role": "assistant", "content": "Hello"}
CITATION = {"type": "url_citation", "url_citation": {"url": "https://example.org", "start_index": 0, "end_index": 1}}


@pytest.mark.parametrize(
    ("history", "plain"),
    [
        ([HI, {**ANSWER, "reasoning_content": "hm"}, HI], [HI, ANSWER, HI]),
        ([HI, {**ANSWER, "reasoning": "hm", "reasoning_details": [{}]}, HI], [HI, ANSWER, HI]),
        ([HI, {**ANSWER, "refusal": "no", "annotations": [CITATION], "tool_calls": []}, HI], [HI, ANSWER, HI]),
        ([HI, {"role": "assistant", "content": None, "refusal": "no"}, HI], [HI, {**ANSWER, "content": ""}, HI]),
        (
            [HI, {**ANSWER, "content": [{"type": "text", "text": "Hello"}, {"type": "refusal", "refusal": "no"}]}, HI],
            [HI, ANSWER, HI],
        ),
        (
            [HI, {"role": "assistant", "parsed": None, "tool_calls": [{**CALL, "index": 0, "caller": None}]}, RESULT],
            [HI, {"role": "assistant", "content": None, "tool_calls": [CALL]}, RESULT],
        ),
    ],
)
async def test_chat(world: ServerFixture, history: list[Any], plain: list[Any]) -> None:
    for messages in (history, plain):
        answer = await world.ask(messages=messages)
        assert answer.status_code == 200, answer.text
    first, second = world.engine.prompts
    assert first.token_ids == second.token_ids


def output(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(parts)}


TEXT = {"type": "output_text", "text": "Hello"}
FUNCTION_CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "5"}
REASONING: dict[str, object] = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": None}


@pytest.mark.parametrize(
    ("history", "plain"),
    [
        ([HI, REASONING, output(TEXT), HI], [HI, output(TEXT), HI]),
        ([HI, output({**TEXT, "annotations": [{"type": "url_citation"}]}), HI], [HI, output(TEXT), HI]),
        ([HI, output(TEXT, {"type": "refusal", "refusal": "no"}), HI], [HI, output(TEXT), HI]),
        (
            [HI, REASONING, {**FUNCTION_CALL, "async": None, "caller": {}}, REASONING, OUTPUT],
            [HI, FUNCTION_CALL, OUTPUT],
        ),
    ],
)
async def test_responses(world: ServerFixture, history: list[Any], plain: list[Any]) -> None:
    for items in (history, plain):
        answer = await world.respond(input=items)
        assert answer.status_code == 200, answer.text
    first, second = world.engine.prompts
    assert first.token_ids == second.token_ids
