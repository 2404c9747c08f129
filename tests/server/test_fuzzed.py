"""Every operation of the server's own description, asked at random: only documented answers, in the documented form.

`FUZZ_EXAMPLES` sets the number of requests of each operation and mode; without it, the same few are made every time.
"""

import asyncio
import json
import os
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from openapi_schema_validator import OAS31Validator
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.error_body import check_error
from tests.support.fakes import MODEL
from tests.support.world import OpenWorld

EXAMPLES = os.environ.get("FUZZ_EXAMPLES")
DEFAULT_EXAMPLES = 50
ANSWERED = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/tokenize",
    "/detokenize",
)
EVENTS = {
    "/v1/chat/completions": ["ChatCompletionChunk"],
    "/v1/completions": ["Completion"],
    "/v1/responses": [
        "ArgumentsDeltaEvent",
        "ArgumentsDoneEvent",
        "ItemEvent",
        "LifecycleEvent",
        "PartEvent",
        "TextDeltaEvent",
        "TextDoneEvent",
    ],
    "/v1/messages": ["BlockDelta", "BlockStart", "BlockStop", "MessageDelta", "MessageStart", "MessageStop"],
}
"""What streams consist of where nothing fails."""
Case = schemathesis.Case[Any]
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]


def check_events(case: Case, text: str) -> None:
    """Every event of a stream is of a documented form; OpenAPI 3.1 says so in words only."""
    assert text.endswith("\n\n")
    names = EVENTS[case.path]
    schemas = case.operation.schema.raw_schema["components"]
    form = {"anyOf": [{"$ref": f"#/components/schemas/{name}"} for name in names], "components": schemas}
    validator = OAS31Validator(form)
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    *events, last = data
    assert (last == "[DONE]") == (case.path not in ("/v1/responses", "/v1/messages"))
    for event in events if last == "[DONE]" else data:
        validator.validate(json.loads(event))


def check(case: Case, answer: schemathesis.Response) -> None:
    """No fault of the server, nothing that is not documented, and the one body of every error."""
    if answer.headers.get("content-type", [""])[0].startswith("text/event-stream"):
        check_events(case, answer.text)
        return
    case.validate_response(answer, checks=CHECKS)
    if answer.status_code < 400:
        return
    assert answer.status_code < 500, answer.text
    headers = [(name, value) for name, values in answer.headers.items() for value in values]
    told = answer.json()["error"]
    if case.path.startswith("/v1/messages"):
        assert set(told) in ({"type", "message"}, {"type", "message", "details"})
        return
    check_error(
        httpx.Response(answer.status_code, headers=headers, content=answer.content),
        answer.status_code,
        param=told["param"],
        code=told["code"],
    )


def ask_operation(operation: Any, url: str, mode: schemathesis.GenerationMode) -> set[int]:
    """Ask one operation; the statuses it answered with."""
    statuses: set[int] = set()

    @settings(
        max_examples=int(EXAMPLES or DEFAULT_EXAMPLES),
        derandomize=EXAMPLES is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Case) -> None:
        answer = case.call(base_url=url)
        statuses.add(answer.status_code)
        check(case, answer)

    ask()
    return statuses


def ask_all(document: dict[str, Any], url: str, mode: schemathesis.GenerationMode) -> dict[str, set[int]]:
    """Ask every operation that can be asked in this mode; the statuses each answered with."""
    seen: dict[str, set[int]] = {}
    failures: list[Exception] = []
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()
        if mode.is_negative and not (operation.body or operation.query):
            continue  # it takes nothing that could be wrong: any text is an id
        try:
            seen[operation.label] = ask_operation(operation, url, mode)
        except Exception as error:
            error.add_note(f"asking {operation.label}")
            failures.append(error)
    if failures:
        raise ExceptionGroup("operations answered otherwise", failures)
    return seen


def with_known_model(document: dict[str, Any]) -> dict[str, Any]:
    """The document for a client that knows the model's name, so that most requests get past it."""
    for name, schema in document["components"]["schemas"].items():
        if name.endswith("Request") and "model" in schema["properties"]:
            schema["properties"]["model"] = {"const": MODEL}
    return document


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
async def test_random_requests_are_answered_as_documented(
    open_world: OpenWorld, mode: schemathesis.GenerationMode
) -> None:
    async with open_world(live=True) as world:
        document = with_known_model((await world.client.get("/openapi.json")).json())
        seen = await asyncio.to_thread(ask_all, document, world.url, mode)
    if mode.is_positive:
        assert len(seen) == sum(len(path) for path in document["paths"].values())
        if int(EXAMPLES or DEFAULT_EXAMPLES) >= DEFAULT_EXAMPLES:  # fewer may all happen to be refused
            assert [path for path in ANSWERED if 200 not in seen[f"POST {path}"]] == []
    else:
        assert all(400 in statuses for statuses in seen.values()) and len(seen) >= len(ANSWERED)
