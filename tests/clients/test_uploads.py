"""Large files by `/v1/files`, and previews, at a live server."""

import asyncio
from pathlib import Path

import openai
import pytest

from server.media.types import LocalFile
from tessera_client import MediaError, content, preview, upload
from tests.support.fakes import MODEL
from tests.support.images import asked, png
from tests.support.world import ServerFixture


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.png"
    path.write_bytes(png(5_000_000))
    return path


async def test_a_large_file_is_uploaded_once_and_asked_about(
    live: ServerFixture, sdk: openai.OpenAI, large: Path
) -> None:
    told: list[tuple[str, int, int]] = []
    parts = await asyncio.to_thread(
        content, "What?", large, client=sdk, on_upload=lambda path, done, size: told.append((path.name, done, size))
    )
    assert [part["type"] for part in parts] == ["text", "file"]
    counts = [done for _, done, _ in told]
    assert counts == sorted(counts) and counts[-1] == 5_000_000 and len(set(counts)) > 5
    assert {(name, size) for name, _, size in told} == {("large.png", 5_000_000)}
    for _ in range(2):
        await asyncio.to_thread(lambda: sdk.chat.completions.create(model=MODEL, messages=asked(*parts)))
    sources = [part.source for part in live.media.parts]
    assert len(sources) == 2 and all(isinstance(source, LocalFile) for source in sources)
    (file,) = (await asyncio.to_thread(sdk.files.list)).data
    assert (await asyncio.to_thread(sdk.files.content, file.id)).content == large.read_bytes()


async def test_without_a_client_or_below_the_size_nothing_is_uploaded(
    live: ServerFixture, sdk: openai.OpenAI, large: Path, photo_path: Path
) -> None:
    assert content(large)[0]["type"] == "image_url"
    assert content(photo_path, client=sdk)[0]["type"] == "image_url"
    assert not (await asyncio.to_thread(sdk.files.list)).data


async def test_an_upload_carries_the_wishes_of_its_part_and_expires(sdk: openai.OpenAI, large: Path) -> None:
    part = await asyncio.to_thread(lambda: upload(sdk, large, lifetime_s=3600, max_pixels=784))
    assert part["max_pixels"] == 784
    (file,) = (await asyncio.to_thread(sdk.files.list)).data
    assert file.expires_at == file.created_at + 3600


async def test_what_is_no_medium_is_the_servers_refusal(sdk: openai.OpenAI, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(openai.BadRequestError):
        await asyncio.to_thread(upload, sdk, tmp_path / "a.txt")
    with pytest.raises(MediaError, match=r"b\.txt"):
        await asyncio.to_thread(upload, sdk, tmp_path / "b.txt")


async def test_a_preview_tells_what_the_model_would_see(
    live: ServerFixture, sdk: openai.OpenAI, photo_path: Path
) -> None:
    messages = [{"role": "user", "content": content("What?", photo_path)}]
    shown = await asyncio.to_thread(lambda: preview(sdk, model=MODEL, messages=messages))
    assert shown["prompt_tokens"] == sum(part["tokens"] for part in shown["parts"])
    assert shown["media"][0]["size"] == {"width": 56, "height": 56}
    assert not live.engine.prompts
    with pytest.raises(openai.NotFoundError):
        await asyncio.to_thread(lambda: preview(sdk, model="other", messages=messages))
