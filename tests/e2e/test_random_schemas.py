"""A hundred random JSON Schemas that are enforced, and a hundred that are not, over HTTP with the bundled model."""

import asyncio
import json
from typing import Any

import httpx
import jsonschema
import pytest

from model_executor.checkpoint.config import BUNDLED_MODEL
from tests.support.error_body import check_error
from tests.support.schemas import random_schema, unsupported_schema
from tests.support.serving import RunningServer

pytestmark = [pytest.mark.engine, pytest.mark.slow]

NUM_SCHEMAS = 100
NUM_TOGETHER = 12
FIRST_SEED = 1000
"""Other schemas than those of the engine's own tests."""
PLACE = "response_format.json_schema.schema"


async def ask(client: httpx.AsyncClient, schema: dict[str, Any], seed: int, turns: asyncio.Semaphore) -> httpx.Response:
    body = {
        "model": BUNDLED_MODEL,
        "messages": [{"role": "user", "content": "Fill in the form."}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "form", "strict": True, "schema": schema}},
        "temperature": 1,
        "seed": seed,
        "max_tokens": 300,
    }
    async with turns:
        return await client.post("/v1/chat/completions", json=body)


async def ask_all(url: str, schemas: list[dict[str, Any]]) -> list[httpx.Response]:
    turns = asyncio.Semaphore(NUM_TOGETHER)
    async with httpx.AsyncClient(base_url=url, timeout=300) as client:
        return await asyncio.gather(*(ask(client, schema, seed, turns) for seed, schema in enumerate(schemas)))


async def test_every_completed_answer_validates(bundled_server: RunningServer) -> None:
    schemas = [random_schema(FIRST_SEED + number) for number in range(NUM_SCHEMAS)]
    num_completed = 0
    for schema, answer in zip(schemas, await ask_all(bundled_server.url, schemas), strict=True):
        assert answer.status_code == 200, (answer.text, schema)
        choice = answer.json()["choices"][0]
        if choice["finish_reason"] == "stop":
            num_completed += 1
            value = json.loads(choice["message"]["content"])
            jsonschema.validate(value, schema, cls=jsonschema.Draft202012Validator)
        else:
            assert choice["finish_reason"] == "length"
    assert num_completed >= 0.8 * NUM_SCHEMAS


async def test_every_schema_that_is_not_enforced_is_refused_by_its_keyword(bundled_server: RunningServer) -> None:
    schemas = [unsupported_schema(FIRST_SEED + number) for number in range(NUM_SCHEMAS)]
    for schema, answer in zip(schemas, await ask_all(bundled_server.url, schemas), strict=True):
        param = answer.json()["error"]["param"]
        message = check_error(answer, 400, param=param, code="unsupported_value")
        keyword = param.rsplit(".", 1)[1]
        assert param.startswith(PLACE) and f'"{keyword}":' in json.dumps(schema) and keyword in message
    assert httpx.get(f"{bundled_server.url}/health").status_code == 200
