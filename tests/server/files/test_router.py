"""`/v1/files` over HTTP: exact objects, one tenant's view, and refusals in the one error body."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_executor.engine import EngineState
from server.media.types import LocalFile
from tests.support.error_body import check_error
from tests.support.fakes import FakeEngine
from tests.support.images import png
from tests.support.stored import left
from tests.support.waiting import until
from tests.support.world import OpenWorld, ServerFixture, Unread

ROUTE = "/v1/files"


async def upload(world: ServerFixture, data: bytes = png(), filename: str = "a.png", **fields: Any) -> httpx.Response:
    return await world.client.post(
        ROUTE, files={"file": (filename, data)}, data={"purpose": "vision", **fields}, timeout=30
    )


async def added(world: ServerFixture, **fields: Any) -> str:
    response = await upload(world, **fields)
    assert response.status_code == 200, response.text
    id_: str = response.json()["id"]
    return id_


def use_key(world: ServerFixture, key: str) -> None:
    world.client.headers["Authorization"] = f"Bearer {key}"


@pytest.fixture
async def two_keys(open_world: OpenWorld) -> AsyncIterator[ServerFixture]:
    async with open_world(api_key="first,second") as world:
        use_key(world, "first")
        yield world


async def test_an_upload_is_answered_with_the_file_object(world: ServerFixture) -> None:
    before_s = int(time.time())
    response = await upload(world, filename="ein Bild „1“.png", purpose="user_data")
    assert response.status_code == 200
    answer = response.json()
    assert answer == {
        "id": answer["id"],
        "object": "file",
        "bytes": 1000,
        "created_at": answer["created_at"],
        "expires_at": answer["created_at"] + 30 * 86_400,
        "filename": "ein Bild „1“.png",
        "purpose": "user_data",
        "status": "processed",
        "status_details": None,
    }
    assert before_s <= answer["created_at"] <= time.time()
    assert (await world.client.get(f"{ROUTE}/{answer['id']}")).json() == answer


async def test_content_comes_back_to_be_saved(world: ServerFixture) -> None:
    data = png(700_000)
    id_ = (await upload(world, data, "a b;ü.png")).json()["id"]
    response = await world.client.get(f"{ROUTE}/{id_}/content")
    assert response.content == data
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-length"] == "700000"
    assert response.headers["content-disposition"] == "attachment; filename*=utf-8''a%20b%3B%C3%BC.png"
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_a_deleted_file_is_gone(world: ServerFixture) -> None:
    id_ = await added(world)
    response = await world.client.delete(f"{ROUTE}/{id_}")
    assert response.json() == {"id": id_, "object": "file", "deleted": True}
    for method, path in (("GET", id_), ("GET", f"{id_}/content"), ("DELETE", id_)):
        response = await world.client.request(method, f"{ROUTE}/{path}")
        assert check_error(response, 404, param="id", code="file_not_found") == f"No such File object: {id_}"


async def test_expiry_may_be_asked_for(world: ServerFixture) -> None:
    fields: dict[str, Any] = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    answer = (await upload(world, **fields)).json()
    assert answer["expires_at"] == answer["created_at"] + 3600


async def test_pages(world: ServerFixture) -> None:
    assert (await world.client.get(ROUTE)).json() == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }
    ids = [await added(world, purpose=purpose) for purpose in ("vision", "user_data", "vision")]

    async def page(**query: Any) -> tuple[list[str], bool]:
        answer = (await world.client.get(ROUTE, params=query)).json()
        listed = [each["id"] for each in answer["data"]]
        assert (answer["first_id"], answer["last_id"]) == ((listed[0], listed[-1]) if listed else (None, None))
        return listed, answer["has_more"]

    assert await page() == (ids[::-1], False)
    assert await page(order="asc") == (ids, False)
    assert await page(limit=2) == (ids[:0:-1], True)
    assert await page(limit=2, after=ids[1]) == (ids[:1], False)
    assert await page(order="asc", after=ids[0], limit=1) == (ids[1:2], True)
    assert await page(after=ids[0]) == ([], False)
    assert await page(purpose="vision", order="asc") == ([ids[0], ids[2]], False)
    assert await page(purpose="batch") == ([], False)


@pytest.mark.parametrize(
    ("query", "param", "code"),
    [
        ("limit=0", "limit", "invalid_value"),
        ("limit=10001", "limit", "invalid_value"),
        ("limit=x", "limit", "invalid_value"),
        ("order=up", "order", "invalid_value"),
        ("before=x", "before", "unknown_parameter"),
    ],
)
async def test_wrong_queries_are_refused_by_name(world: ServerFixture, query: str, param: str, code: str) -> None:
    check_error(await world.client.get(f"{ROUTE}?{query}"), 400, param=param, code=code)


async def test_a_page_after_an_unknown_file_is_refused(world: ServerFixture) -> None:
    check_error(await world.client.get(f"{ROUTE}?after=file-x"), 404, param="after", code="file_not_found")


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"purpose": "fine-tune"}, "purpose", "invalid_value"),
        ({"purpose": ""}, "purpose", "invalid_value"),
        ({"expires_after[anchor]": "created_at"}, "expires_after.seconds", "missing_required_parameter"),
        (
            {"expires_after[anchor]": "now", "expires_after[seconds]": "3600"},
            "expires_after.anchor",
            "invalid_value",
        ),
        (
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"},
            "expires_after.seconds",
            "invalid_value",
        ),
        ({"color": "red"}, "color", "unknown_parameter"),
    ],
)
async def test_wrong_fields_are_refused_by_name_and_nothing_stays(
    world: ServerFixture, tmp_path: Path, fields: dict[str, Any], param: str, code: str
) -> None:
    check_error(await upload(world, **fields), 400, param=param, code=code)
    assert left(tmp_path / "data") == []


async def test_a_missing_purpose_is_refused(world: ServerFixture) -> None:
    response = await world.client.post(ROUTE, files={"file": ("a.png", png())})
    check_error(response, 400, param="purpose", code="missing_required_parameter")


async def test_a_text_is_refused(world: ServerFixture) -> None:
    assert "neither an image nor a video" in check_error(
        await upload(world, b"hello", "a.png"), 400, param="file", code="unsupported_file"
    )


async def test_json_is_refused(world: ServerFixture) -> None:
    check_error(await world.client.post(ROUTE, json={}), 400, code="invalid_content_type")


async def test_a_key_sees_its_own_files_only(two_keys: ServerFixture) -> None:
    id_ = await added(two_keys)
    use_key(two_keys, "second")
    assert (await two_keys.client.get(ROUTE)).json()["data"] == []
    for method, path in (("GET", id_), ("GET", f"{id_}/content"), ("DELETE", id_)):
        check_error(await two_keys.client.request(method, f"{ROUTE}/{path}"), 404, param="id", code="file_not_found")
    use_key(two_keys, "first")
    assert (await two_keys.client.get(f"{ROUTE}/{id_}")).status_code == 200


async def test_the_key_comes_before_the_body_is_read(two_keys: ServerFixture) -> None:
    use_key(two_keys, "wrong")
    check_error(await two_keys.client.post(ROUTE, content=Unread()), 401, code="invalid_api_key")


async def test_files_survive_a_restart_of_the_server(open_world: OpenWorld) -> None:
    async with open_world() as world:
        id_ = await added(world)
    async with open_world() as world:
        assert (await world.client.get(f"{ROUTE}/{id_}/content")).content == png()


async def test_files_may_be_larger_than_other_bodies(open_world: OpenWorld, tmp_path: Path) -> None:
    async with open_world(max_body_bytes=2000, files={"max_file_bytes": 100_000}) as world:
        assert (await upload(world, png(100_000))).status_code == 200
        assert "100000" in check_error(await upload(world, png(100_001)), 413, param="file", code="file_too_large")
        headers = {"content-type": "multipart/form-data; boundary=x", "content-length": str(100_001 + 65_536)}
        response = await world.client.post(ROUTE, content=Unread(), headers=headers)
        assert "files.max_file_bytes" in check_error(response, 413, code="body_too_large")
        other = await world.client.post(f"{ROUTE}/x", content=Unread(), headers={"content-length": "2001"})
        check_error(other, 413, code="body_too_large")
        assert len(left(tmp_path / "data")) == 1


async def test_a_full_server_is_said(open_world: OpenWorld) -> None:
    async with open_world(files={"max_total_bytes": 999}) as world:
        check_error(await upload(world), 507, param="file", code="storage_full")


async def test_uploads_do_not_wait_for_the_model(open_world: OpenWorld) -> None:
    async with open_world(engine=FakeEngine(state=EngineState.LOADING)) as world:
        await added(world)


def naming(world: ServerFixture, id_: str, **more: Any) -> dict[str, Any]:
    return world.body(messages=[{"role": "user", "content": [{"type": "file", "file": {"file_id": id_}, **more}]}])


async def test_a_request_may_name_a_file(two_keys: ServerFixture) -> None:
    id_ = await added(two_keys)
    body = naming(two_keys, id_, max_pixels=7840)
    assert (await two_keys.client.post("/v1/chat/completions", json=body)).status_code == 200
    [part] = two_keys.media.parts
    assert isinstance(part.source, LocalFile) and Path(part.source.path).read_bytes() == png()
    assert (part.modality, part.param, part.limits.max_pixels) == ("image", "messages[0].content[0].file", 7840)


async def test_a_request_may_not_name_the_file_of_another_key(two_keys: ServerFixture) -> None:
    id_ = await added(two_keys)
    await two_keys.client.delete(f"{ROUTE}/{(deleted := await added(two_keys))}")
    param = "messages[0].content[0].file.file_id"
    for route in ("/v1/chat/completions", "/v1/chat/completions/preview"):
        for key, named in (("second", id_), ("first", deleted), ("first", "file-x"), ("first", "../" + id_)):
            use_key(two_keys, key)
            response = await two_keys.client.post(route, json=naming(two_keys, named))
            check_error(response, 404, param=param, code="file_not_found")
    assert two_keys.media.parts == []


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(open_world: OpenWorld, tmp_path: Path) -> None:
    async with open_world(live=True) as world:
        address = httpx.URL(world.url)
        _, writer = await asyncio.open_connection(address.host, address.port)
        head = (
            f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
            '--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        )
        writer.write(head.encode() + png(1_500_000))
        await writer.drain()
        await until(lambda: left(tmp_path / "data"))
        writer.close()
        await until(lambda: not left(tmp_path / "data"))
        await added(world)
