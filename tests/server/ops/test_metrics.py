"""What Prometheus reads, checked with Prometheus' own parser."""

import asyncio
import time

import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from model_executor.engine import (
    Delta,
    EngineState,
    EngineStats,
    Prompt,
    ReplicaStats,
    RequestFailedError,
    SamplingParams,
)
from server.core import concurrency
from server.core.metrics import CacheLoad, MediaLoad, MediaStage, StageLoad
from server.generation import model_service
from tests.support.error_body import check_error
from tests.support.fakes import FakeEngine, FakeMedia, Step
from tests.support.images import encoded
from tests.support.world import OpenWorld, ServerFixture


async def samples(world: ServerFixture) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    response = await world.client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


async def test_shows_the_engines_reading_of_this_moment(open_world: OpenWorld) -> None:
    engine = FakeEngine(readings=EngineStats(num_running=2, num_waiting=3, kv_cache_usage=0.5, generation_tokens=77))
    async with open_world(engine=engine) as world:
        read = await samples(world)
        assert read["tessera_requests_running", ()] == 2
        assert read["tessera_requests_waiting", ()] == 3
        assert read["tessera_kv_cache_usage", ()] == 0.5
        assert read["tessera_generation_tokens_total", ()] == 77
        assert read["tessera_engine_state", (("state", "ready"),)] == 1
        engine.readings = EngineStats(num_running=0)
        assert (await samples(world))["tessera_requests_running", ()] == 0


async def test_shows_each_of_several_engines(open_world: OpenWorld) -> None:
    parts = (
        ReplicaStats(EngineState.READY, EngineStats(num_running=2, prefix_cache_hits=5)),
        ReplicaStats(EngineState.RESTARTING, EngineStats(prefix_cache_hits=7)),
    )
    async with open_world(engine=FakeEngine(readings=EngineStats(prefix_cache_hits=12, replicas=parts))) as world:
        read = await samples(world)
    assert read["tessera_prefix_cache_hits_total", ()] == 12
    assert [read["tessera_replica_prefix_cache_hits_total", (("replica", number),)] for number in "01"] == [5, 7]
    assert read["tessera_replica_requests_running", (("replica", "0"),)] == 2
    assert read["tessera_replica_state", (("replica", "0"), ("state", "ready"))] == 1
    assert read["tessera_replica_state", (("replica", "1"), ("state", "ready"))] == 0
    assert read["tessera_replica_state", (("replica", "1"), ("state", "restarting"))] == 1


async def test_shows_how_busy_the_media_side_is(open_world: OpenWorld) -> None:
    cache = CacheLoad(num_hits=5, num_misses=6, num_evictions=7, idle_bytes=8192)
    stages: dict[MediaStage, StageLoad] = {
        "fetch": StageLoad(9, 1.5),
        "queue": StageLoad(4, 0.25),
        "decode": StageLoad(4, 8.0),
    }
    load = MediaLoad(num_waiting=3, num_running=2, num_restarts=1, shared_bytes=4096, cache=cache, stages=stages)
    media = FakeMedia(load=load)
    async with open_world(media=media) as world:
        read = await samples(world)
    assert read["tessera_media_jobs_waiting", ()] == 3
    assert read["tessera_media_jobs_running", ()] == 2
    assert read["tessera_media_worker_restarts_total", ()] == 1
    assert read["tessera_media_shared_bytes", ()] == 4096
    assert read["tessera_media_cache_hits_total", ()] == 5
    assert read["tessera_media_cache_misses_total", ()] == 6
    assert read["tessera_media_cache_evictions_total", ()] == 7
    assert read["tessera_media_cache_bytes", ()] == 8192
    assert read["tessera_media_stage_seconds_count", (("stage", "fetch"),)] == 9
    assert read["tessera_media_stage_seconds_sum", (("stage", "queue"),)] == 0.25
    assert read["tessera_media_stage_seconds_sum", (("stage", "decode"),)] == 8


async def test_shows_how_much_is_uploaded(open_world: OpenWorld) -> None:
    picture = encoded(Image.new("RGB", (30, 20)), "PNG")
    async with open_world() as world:
        assert (await samples(world))["tessera_files", ()] == 0
        ids = []
        for _ in range(2):
            upload = {"file": ("a.png", picture)}
            response = await world.client.post("/v1/files", files=upload, data={"purpose": "vision"})
            ids.append(response.json()["id"])
        read = await samples(world)
        assert (read["tessera_files", ()], read["tessera_files_bytes", ()]) == (2, 2 * len(picture))
        await world.client.delete(f"/v1/files/{ids[0]}")
        read = await samples(world)
        assert (read["tessera_files", ()], read["tessera_files_bytes", ()]) == (1, len(picture))


async def test_works_while_the_engine_is_away(open_world: OpenWorld) -> None:
    async with open_world(engine=FakeEngine(state=EngineState.RESTARTING)) as world:
        async with asyncio.timeout(60):
            while not (read := await samples(world))["tessera_engine_state", (("state", "restarting"),)]:
                await asyncio.sleep(0)
        assert ("tessera_requests_running", ()) not in read


async def test_counts_requests_and_times_answers(world: ServerFixture) -> None:
    await world.ask()
    await world.ask(stream=True)
    await world.ask(temperature=9)
    read = await samples(world)
    route = ("route", "/v1/chat/completions")
    assert read["tessera_http_requests_total", (("method", "POST"), route, ("status", "2xx"))] == 2
    assert read["tessera_http_requests_total", (("method", "POST"), route, ("status", "4xx"))] == 1
    assert read["tessera_time_to_first_token_seconds_count", ()] == 2
    assert read["tessera_inter_token_seconds_count", ()] == 4
    assert read["tessera_answer_seconds_count", ()] == 2
    assert read["tessera_request_generation_tokens_sum", ()] == 6
    assert read["tessera_http_requests_in_flight", ()] == 1  # this scrape


async def test_counts_errors_by_kind_in_responses_and_in_streams(open_world: OpenWorld) -> None:
    def script(_: Prompt, __: SamplingParams) -> list[Step]:
        return [Delta(0, "Hello", [100]), RequestFailedError("it broke")]

    async with open_world(engine=FakeEngine(script=script)) as world:
        await world.ask(temperature=9)
        await world.ask(temperature="hot")
        await world.ask(model="another")
        assert (await world.ask(stream=True)).status_code == 200  # the error is an event
        await world.client.get("/nowhere")
        read = await samples(world)
    kinds = {labels: value for (name, labels), value in read.items() if name == "tessera_errors_total"}
    assert kinds == {
        (("kind", "invalid_value"), ("status", "400")): 1,
        (("kind", "invalid_type"), ("status", "400")): 1,
        (("kind", "model_not_found"), ("status", "404")): 1,
        (("kind", "server_error"), ("status", "500")): 1,
        (("kind", "unknown_url"), ("status", "404")): 1,
    }


async def test_nothing_a_client_makes_up_becomes_a_label(world: ServerFixture) -> None:
    await world.client.get("/made/up/path?made=up")
    await world.client.request("MADEUP", "/v1/chat/completions")
    await world.ask(model="made-up")
    await world.client.get("/v1/models/made-up")
    text = (await world.client.get("/metrics")).text
    assert "made" not in text.lower()


async def test_other_keys_do_not_read_what_a_key_does(open_world: OpenWorld) -> None:
    async with open_world(api_key="alices,bobs") as world:
        world.client.headers["authorization"] = "Bearer alices"
        await world.ask()
        text = (await world.client.get("/metrics", headers={"Authorization": "Bearer bobs"})).text
        assert "tessera_http_requests_total" in text and "key-1" not in text


async def test_a_key_for_metrics_opens_them_alone_and_nothing_else(open_world: OpenWorld) -> None:
    async with open_world(api_key="alices", metrics_key="watchers") as world:
        world.client.headers["authorization"] = "Bearer alices"
        await world.ask()
        check_error(await world.client.get("/metrics"), 401, code="invalid_api_key")
        world.client.headers["authorization"] = "Bearer watchers"
        assert 'tessera_key_requests_total{key="key-1",status="2xx"} 1.0' in (await world.client.get("/metrics")).text
        check_error(await world.ask(), 401, code="invalid_api_key")
        del world.client.headers["authorization"]
        check_error(await world.client.get("/metrics"), 401, code="invalid_api_key")


async def test_an_engine_that_does_not_answer_does_not_hold_up_the_measurements(
    open_world: OpenWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_service, "STATS_TIMEOUT_S", 0.05)

    class Frozen(FakeEngine):
        async def stats(self) -> EngineStats:
            await asyncio.Event().wait()
            raise AssertionError

    async with open_world(engine=Frozen()) as world:
        text = (await world.client.get("/metrics")).text
    assert "tessera_http_requests_in_flight" in text and "tessera_kv_cache_usage" not in text


async def test_the_lateness_of_the_event_loop_is_measured(
    open_world: OpenWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrency, "LOOP_CHECK_S", 0.01)
    async with open_world() as world:
        await asyncio.sleep(0.05)
        time.sleep(0.3)  # somebody holds the loop
        await asyncio.sleep(0.05)
        read = await samples(world)
    assert read["tessera_event_loop_lag_seconds_sum", ()] > 0.25
    assert (
        read["tessera_event_loop_lag_seconds_count", ()]
        > read["tessera_event_loop_lag_seconds_bucket", (("le", "0.2"),)]
    )
