"""Request ids, the access log, and the bodies of errors no route makes."""

import json
import logging

import pytest

from model_executor.engine import EngineState
from server.core.json_log import JsonFormatter
from tests.support.error_body import check_error
from tests.support.fakes import FakeEngine
from tests.support.world import OpenWorld, ServerFixture


@pytest.mark.parametrize("given", ["abc-123", "req_0.9:x/y@z", "a" * 128])
async def test_echoes_a_sane_id(world: ServerFixture, given: str) -> None:
    for path in ("/health", "/nowhere", "/v1/models/x"):
        response = await world.client.get(path, headers={"x-request-id": given})
        assert response.headers.get_list("x-request-id") == [given]


@pytest.mark.parametrize("given", ["", "a" * 129, "a b", "a\tb", "é", '"', "<script>"])
async def test_makes_an_id_where_the_clients_is_not_sane(world: ServerFixture, given: str) -> None:
    response = await world.client.get("/health", headers=[(b"x-request-id", given.encode())])
    assert response.headers["x-request-id"].startswith("req_")


async def test_every_request_has_an_id_of_its_own(world: ServerFixture) -> None:
    ids = {(await world.client.get("/health")).headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5


async def test_a_stream_has_an_id_too(world: ServerFixture) -> None:
    response = await world.ask(stream=True)
    assert response.headers["x-request-id"].startswith("req_")


async def test_logs_one_line_without_contents(open_world: OpenWorld, caplog: pytest.LogCaptureFixture) -> None:
    async with open_world(api_key="secret-key") as world:
        world.client.headers["Authorization"] = "Bearer secret-key"
        with caplog.at_level(logging.INFO, "tessera.access"):
            await world.client.post(
                "/v1/chat/completions?q=private-query",
                json=world.body(messages=[{"role": "user", "content": "private-words"}]),
                headers={"x-request-id": "id-1"},
            )
    (record,) = [record for record in caplog.records if record.name == "tessera.access"]
    line = JsonFormatter().format(record)
    entry = json.loads(line)
    assert (entry["request_id"], entry["method"], entry["status"]) == ("id-1", "POST", 200)
    assert entry["path"] == "/v1/chat/completions" and entry["duration_ms"] >= 0
    assert not any(word in line for word in ("private", "secret", "Hello"))


async def test_usual_health_is_no_news(open_world: OpenWorld, caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine()
    async with open_world(engine=engine) as world:
        with caplog.at_level(logging.INFO, "tessera.access"):
            await world.client.get("/health")
            engine.state = EngineState.RESTARTING
            await world.client.get("/health")
            await world.client.post("/health")
    entries = [json.loads(JsonFormatter().format(each)) for each in caplog.records if each.name == "tessera.access"]
    assert [(entry["path"], entry["status"]) for entry in entries] == [("/health", 405)]


async def test_the_log_names_the_key_and_can_be_turned_off(
    open_world: OpenWorld, caplog: pytest.LogCaptureFixture
) -> None:
    for wanted in (True, False):
        caplog.clear()
        async with open_world(api_key="secret-key", access_log=wanted) as world:
            with caplog.at_level(logging.INFO, "tessera.access"):
                await world.client.get("/v1/models", headers={"authorization": "Bearer secret-key"})
                await world.client.get("/v1/models")
        lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
        keys = [line["key"] for line in lines if line["logger"] == "tessera.access"]
        assert keys == (["key-1", None] if wanted else [])


async def test_logs_our_faults_with_the_id_and_tells_nothing(
    open_world: OpenWorld, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_world(engine=FakeEngine(script=lambda *_: [KeyError("inner detail")])) as world:
        world.client.headers["x-request-id"] = "id-2"
        response = await world.ask()
    assert "inner detail" not in check_error(response, 500)
    (record,) = [record for record in caplog.records if record.name == "tessera.error"]
    entry = json.loads(JsonFormatter().format(record))
    assert entry["request_id"] == "id-2" and "inner detail" in entry["exception"]


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/playground",
        "/playground/",
        "/playground/index.html",
        "/playground/vendor/marked/LICENSE",
        "/v1",
        "/v1/",
        "/v1/models/",
        "/v1/chat/completions/",
        "/v1/embeddings",
        "/docs",
        "/redoc",
        "/v1//models",
        "/health/",
    ],
)
async def test_unknown_routes_are_json(world: ServerFixture, path: str) -> None:
    response = await world.client.get(path)
    if path == "/v1/models/":
        check_error(response, 404, param="model", code="model_not_found")
    else:
        check_error(response, 404, code="unknown_url")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/models", "GET"),
        ("POST", "/health", "GET"),
        ("PUT", "/v1/models/x", "GET"),
        ("MADEUP", "/metrics", "GET"),
    ],
)
async def test_wrong_methods_are_json_with_the_right_ones(
    world: ServerFixture, method: str, path: str, allow: str
) -> None:
    response = await world.client.request(method, path)
    check_error(response, 405, code="method_not_allowed")
    assert response.headers["allow"] == allow
