"""The server's own description: valid, complete, and true."""

from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from model_executor.processor.tokenizer import Tokenizer
from server.app import create_app
from server.chat.request import ChatCompletionRequest
from server.completions.protocol import CompletionRequest
from server.core.settings import Settings
from server.responses.request import ResponseRequest
from tests.support.fakes import MODEL, FakeEngine, FakeMedia, opener
from tests.support.world import OpenWorld, serve_directly


@pytest.fixture(scope="module")
async def described(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The document, once for all: it takes longer to make than to test."""
    settings = Settings(served_model_name=MODEL, data_dir=tmp_path_factory.mktemp("data"))
    async with (
        serve_directly(create_app(settings, opener(FakeEngine(), FakeMedia(), tokenizer))) as (client, _),
        client,
    ):
        result: dict[str, Any] = (await client.get("/openapi.json")).json()
    return result


def test_is_valid_openapi_3_1(described: dict[str, Any]) -> None:
    assert described["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(described).validate()


def test_describes_every_route_and_no_422(described: dict[str, Any]) -> None:
    assert set(described["paths"]) == {
        "/v1/chat/completions",
        "/v1/chat/completions/preview",
        "/detokenize",
        "/tokenize",
        "/v1/files",
        "/v1/files/{file_id}",
        "/v1/files/{file_id}/content",
        "/v1/completions",
        "/v1/responses",
        "/v1/responses/input_tokens",
        "/v1/responses/{response_id}",
        "/v1/responses/{response_id}/cancel",
        "/v1/responses/{response_id}/input_items",
        "/v1/conversations",
        "/v1/conversations/{conversation_id}",
        "/v1/conversations/{conversation_id}/items",
        "/v1/conversations/{conversation_id}/items/{item_id}",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/models",
        "/v1/models/{model}",
        "/health",
        "/metrics",
    }
    for path in described["paths"].values():
        for operation in path.values():
            assert "422" not in operation["responses"]
            for status, response in operation["responses"].items():
                if status != "200":
                    assert "application/json" in response["content"]
    assert "ValidationError" not in described["components"]["schemas"]


def test_describes_both_forms_of_the_answer(described: dict[str, Any]) -> None:
    operation = described["paths"]["/v1/chat/completions"]["post"]
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    assert {"ChatCompletionRequest", "ChatCompletionChunk", "ErrorResponse"} <= set(described["components"]["schemas"])


COMPLETION_BODIES: list[dict[str, Any]] = [
    {},
    {"prompt": ["a", "b"], "logprobs": 5, "echo": False, "suffix": None},
    {"prompt": [1, 2]},
    {"prompt": [[1], [2]]},
    {"prompt": [[1], []]},
    {"prompt": []},
    {"prompt": ["a", 1]},
    {"prompt": [-1]},
    {"logprobs": 6},
    {"logprobs": True},
    {"echo": 1},
    {"suffix": "a"},
    {"max_tokens": 0},
]


@pytest.mark.parametrize("changes", COMPLETION_BODIES)
def test_the_described_completion_and_the_model_agree(described: dict[str, Any], changes: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/CompletionRequest", "components": described["components"]}
    body = {"model": "m", "prompt": "x", **changes}
    by_schema = OAS31Validator(schema).is_valid(body)
    try:
        CompletionRequest.model_validate(body)
    except ValueError:
        assert not by_schema
    else:
        assert by_schema


def _input(*content: dict[str, Any]) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": list(content)}]}


RESPONSE_BODIES: list[dict[str, Any]] = [
    {},
    {"instructions": None, "text": {"format": {"type": "text"}}, "store": True},
    _input({"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "b", "detail": "low"}),
    _input({"type": "input_image"}),
    _input({"type": "input_video", "video_url": ["a", "b"], "fps": 1}),
    _input({"type": "text", "text": "a"}),
    {"input": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]}]},
    {"input": [{"type": "message", "role": "system", "content": "a"}, {"role": "developer", "content": "b"}]},
    {"input": [{"role": "robot", "content": "a"}]},
    {"input": [{"type": "reasoning", "id": "rs_1", "summary": []}, {"role": "user", "content": "a"}]},
    {"input": [{"type": "computer_call"}]},
    {"input": []},
    {"background": False},
    {"background": True},
    {"previous_response_id": "a"},
    {"n": 2},
]


@pytest.mark.parametrize("changes", RESPONSE_BODIES)
def test_the_described_response_request_and_the_model_agree(described: dict[str, Any], changes: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/ResponseRequest", "components": described["components"]}
    body = {"model": "m", "input": "x", **changes}
    by_schema = OAS31Validator(schema).is_valid(body)
    try:
        ResponseRequest.model_validate(body)
    except ValueError:
        assert not by_schema
    else:
        assert by_schema


async def test_says_that_a_key_is_needed(open_world: OpenWorld) -> None:
    async with open_world(api_key="secret") as world:
        world.client.headers["Authorization"] = "Bearer secret"
        described = (await world.client.get("/openapi.json")).json()
    OpenAPIV31SpecValidator(described).validate()
    assert described["security"] == [{"key": []}, {"header": []}]
    assert described["paths"]["/health"]["get"]["security"] == []


NAMED = {"type": "function", "function": {"name": "f"}}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}, "strict": True}}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
USER = {"role": "user", "content": "x"}
RESULT = {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "y"}]}
BODIES: list[dict[str, Any]] = [
    {},
    {"temperature": None, "stop": ["a"], "logit_bias": {"1": 1}, "include": ["media"]},
    {"temperature": 3},
    {"temperature": "1"},
    {"unknown": 1},
    {"tools": []},
    {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
    {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
    {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}}},
    {"tools": [TOOL], "tool_choice": "sometimes"},
    {"tools": [TOOL], "tool_choice": {"type": "function"}},
    {"tools": [{"type": "function", "function": {"name": "a b"}}]},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
    {"tools": [{"type": "custom", "custom": {"name": "f"}}]},
    {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}, RESULT]},
    {"messages": [USER, {"role": "assistant", "content": "x", "tool_calls": []}]},
    {"messages": [USER, {"role": "assistant"}]},
    {"n": 17},
    {"stop": ["a"] * 5},
    {"messages": [{"role": "user", "content": [{"type": "video", "video": ["a", "b"], "fps": 1}]}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a", "detail": "low"}}]}]},
    {"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]},
    {"messages": [{"role": "tool", "content": "a"}]},
    {"messages": []},
]


@pytest.mark.parametrize("changes", BODIES)
def test_the_described_schema_and_the_model_agree(described: dict[str, Any], changes: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/ChatCompletionRequest", "components": described["components"]}
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **changes}
    by_schema = OAS31Validator(schema).is_valid(body)
    try:
        ChatCompletionRequest.model_validate(body)
    except ValueError:
        assert not by_schema
    else:
        assert by_schema
