"""Pictures and clips: chosen, pasted, dropped and filmed, and what the model will see of them."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.conftest import OpenPage, ask, open_ready
from tests.support.fakes import MODEL
from tests.support.images import encoded, photo, plain, real_video
from tests.support.world import ServerFixture

TOKEN_PX = 28


async def told(world: ServerFixture, path: Path) -> dict[str, Any]:
    """What the server says of a file when it is asked directly: a media report."""
    upload = await world.client.post("/v1/files", data={"purpose": "vision"}, files={"file": path.read_bytes()})
    part = {"type": "file", "file": {"file_id": upload.json()["id"]}}
    body = {"model": MODEL, "messages": [{"role": "user", "content": [part]}]}
    preview = (await world.client.post("/v1/chat/completions/preview", json=body)).json()
    report: dict[str, Any] = preview["media"][0]
    return report


async def colors(canvas: Locator) -> list[list[int]]:
    """RGB in the middle of the four quarters of a canvas."""
    found: list[list[int]] = await canvas.evaluate(
        """canvas => [[1, 1], [3, 1], [1, 3], [3, 3]].map(([x, y]) => [...canvas.getContext("2d")
             .getImageData(canvas.width * x / 4, canvas.height * y / 4, 1, 1).data].slice(0, 3))"""
    )
    return found


async def test_a_picture_is_shown_resized_under_its_grid_before_it_is_sent(
    page: Page, serve: OpenPage, tmp_path: Path
) -> None:
    (tmp_path / "rocket.png").write_bytes(encoded(photo()))
    async with serve() as world:
        await open_ready(page, world)
        await page.locator("#files").set_input_files(tmp_path / "rocket.png")
        seen = page.locator(".seen")
        await expect(seen).to_be_visible()
        report = await told(world, tmp_path / "rocket.png")
        width, height = report["size"]["width"], report["size"]["height"]
        columns, rows = width // TOKEN_PX, height // TOKEN_PX
        assert columns * rows == report["tokens"]
        facts = await seen.locator("dd").all_inner_texts()
        assert facts == [f"1280 × 854 → {width} × {height}", f"{columns} × {rows} = {report['tokens']:,}"]
        canvas = seen.locator("canvas")
        assert await canvas.evaluate("canvas => [canvas.width, canvas.height]") == [width, height]
        path = await seen.locator(".grid .over").get_attribute("d")
        assert path is not None and path.count("V") == columns - 1 and path.count("H") == rows - 1
        expected = photo().resize((width, height))
        spots = [(x * width // 4, y * height // 4) for y in (1, 3) for x in (1, 3)]
        for got, spot in zip(await colors(canvas), spots, strict=True):
            wanted = expected.getpixel(spot)
            assert isinstance(wanted, tuple)
            assert max(abs(a - b) for a, b in zip(got, wanted, strict=True)) < 48
        await expect(page.locator(".chip .status")).to_have_text(f"{report['tokens']:,} tokens")
        assert not world.engine.prompts  # nothing was asked yet


async def test_a_clip_is_shown_as_the_frames_that_are_sampled(page: Page, serve: OpenPage) -> None:
    async with serve() as world:
        await open_ready(page, world)
        await page.locator("#files").set_input_files(real_video())
        strip = page.locator(".strip")
        await expect(strip).to_have_attribute("aria-busy", "false")
        report = await told(world, real_video())
        assert await strip.locator("canvas").count() == report["frames"]
        assert await strip.locator(".slice").count() == report["grid"][0]
        times = await strip.locator("figcaption").all_inner_texts()
        shown = [float(time.removesuffix(" s")) for time in times]
        assert shown == pytest.approx(report["timestamps"], abs=0.051)
        canvases = await strip.locator("canvas").all()
        frames = [await colors(canvas) for canvas in canvases]
        assert all(before != after for before, after in pairwise(frames[-6:])), frames  # it moves, and nothing is blank
        assert await page.locator(".budget [data-kind=video] b").inner_text() == f"{report['tokens']:,}"


async def test_many_attachments_are_folded(page: Page, serve: OpenPage, tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.png").write_bytes(encoded(plain(300, 200)))
    async with serve() as world:
        await open_ready(page, world)
        await page.locator("#files").set_input_files([tmp_path / f"{number}.png" for number in range(10)])
        await expect(page.locator(".fold")).to_have_count(10)
        await expect(page.locator(".seen canvas")).to_have_count(0)
        await page.locator(".fold summary").nth(3).click()
        await expect(page.locator(".seen canvas")).to_have_count(1)
        await expect(page.locator(".budget")).to_contain_text("template")


async def test_limits_of_the_settings_change_what_is_seen(page: Page, serve: OpenPage) -> None:
    async with serve() as world:
        await open_ready(page, world)
        await page.get_by_text("Settings", exact=True).click()
        await page.get_by_label("fps").fill("1")
        await page.get_by_label("max_pixels").fill("100352")
        await page.locator("#files").set_input_files(real_video())
        await expect(page.locator(".strip")).to_have_attribute("aria-busy", "false")
        assert await page.locator(".strip canvas").count() == 10
        resized = await page.locator(".seen dd").first.inner_text()
        width, height = map(int, resized.split("→ ")[1].split(" × "))
        assert width * height <= 100_352


Bring = Callable[[Page], Awaitable[Any]]
BRINGS = {
    "paste": """document.getElementById("question").dispatchEvent(
                  new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }))""",
    "drop": """for (const name of ["dragover", "drop"]) document.body.dispatchEvent(
                 new DragEvent(name, { dataTransfer: data, bubbles: true, cancelable: true }))""",
}


@pytest.mark.parametrize("how", BRINGS)
async def test_pictures_can_be_pasted_and_dropped(page: Page, serve: OpenPage, how: str) -> None:
    content = list(encoded(plain(300, 200)))
    async with serve() as world:
        await open_ready(page, world)
        await page.evaluate(
            """content => { const data = new DataTransfer();
                 data.items.add(new File([new Uint8Array(content)], "plain.png", { type: "image/png" }));"""
            + BRINGS[how]
            + "}",
            content,
        )
        await expect(page.locator(".chip")).to_have_attribute("data-state", "ready")
        await expect(page.locator("#dropzone")).to_be_hidden()
        await expect(page.locator(".seen canvas")).to_be_visible()
        assert await colors(page.locator(".seen canvas")) == [[0, 128, 128]] * 4
        await page.get_by_label("Question", exact=True).fill("Which color?")
        async with page.expect_request("**/v1/chat/completions") as request:
            await page.get_by_role("button", name="Send").click()
        (message,) = json.loads((await request.value).post_data or "")["messages"]
        assert [part["type"] for part in message["content"]] == ["file", "text"]
        await expect(page.locator(".answer .prose")).to_have_text("Hello, world!")
        assert len(world.engine.prompts[0].media) == 1


@pytest.mark.parametrize("kind", ["picture", "video"])
async def test_the_camera_gives_pictures_and_videos(page: Page, serve: OpenPage, kind: str) -> None:
    async with serve() as world:
        await open_ready(page, world)
        await page.get_by_role("button", name="Use the camera").click()
        await expect(page.get_by_role("button", name="Take a picture")).to_be_enabled()
        if kind == "picture":
            await page.get_by_role("button", name="Take a picture").click()
        else:
            await page.get_by_role("button", name="Record a video").click()
            await expect(page.locator("#camera-hint")).to_contain_text("Recording, 2 s")
            await page.get_by_role("button", name="Stop recording").click()
        await expect(page.locator("#camera-dialog")).to_be_hidden()
        await expect(page.locator(".seen canvas").first).to_be_visible()
        assert (await page.locator(".strip").count() == 1) == (kind == "video")
        assert await page.locator("#camera-view").evaluate("view => view.srcObject === null")  # its lamp is off


async def test_an_upload_shows_how_far_it_is_and_can_be_given_up(page: Page, serve: OpenPage, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(encoded(photo().resize((2000, 1500))))
    async with serve() as world:
        await open_ready(page, world)
        network = await page.context.new_cdp_session(page)
        slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 200_000}
        await network.send("Network.emulateNetworkConditions", slow)
        await page.locator("#files").set_input_files(tmp_path / "large.png")
        await expect(page.locator(".chip progress")).to_be_visible()
        seen: set[float] = set()
        async with asyncio.timeout(30):
            while len(seen) < 3:
                seen.add(await page.locator(".chip progress").evaluate("bar => bar.value"))
        assert all(0 <= value <= 1 for value in seen) and sorted(seen)[1] > 0
        await expect(page.get_by_role("button", name="Send")).to_be_disabled()
        await page.get_by_role("button", name="Remove large.png").click()
        await expect(page.locator(".chip")).to_have_count(0)
        await network.send("Network.emulateNetworkConditions", {**slow, "uploadThroughput": -1})
        assert (await world.client.get("/v1/files")).json()["data"] == []


async def test_a_file_that_is_neither_is_refused_where_it_stands(page: Page, serve: OpenPage, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand nothing more")
    async with serve() as world:
        await open_ready(page, world)
        await page.locator("#files").set_input_files(tmp_path / "broken.png")
        chip = page.locator(".chip")
        await expect(chip).to_have_attribute("data-state", "failed")
        assert len(await chip.locator(".status").inner_text()) > 10
        await expect(page.get_by_role("button", name="Send")).to_be_disabled()
        await page.get_by_role("button", name="Remove broken.png").click()
        await page.get_by_label("Question", exact=True).fill("Hi.")
        await expect(page.get_by_role("button", name="Send")).to_be_enabled()


async def test_files_go_from_the_server_when_they_are_no_longer_needed(
    page: Page, serve: OpenPage, tmp_path: Path
) -> None:
    (tmp_path / "plain.png").write_bytes(encoded(plain(300, 200)))
    async with serve() as world:
        await open_ready(page, world)
        await page.locator("#files").set_input_files(tmp_path / "plain.png")
        await expect(page.locator(".chip")).to_have_attribute("data-state", "ready")
        (kept,) = (await world.client.get("/v1/files")).json()["data"]
        assert kept["expires_at"] - kept["created_at"] == 86_400
        await page.get_by_role("button", name="New conversation").click()
        await page.get_by_role("button", name="Conversations").click()  # where what was begun is kept
        assert await uploads(world) == ["plain.png"]
        await page.get_by_role("button", name="Delete").click()
        await until_uploads(world, [])  # after some seconds, in which it can be undone


async def test_files_that_an_edit_pushed_aside_go_once_it_cannot_be_undone(
    page: Page, serve: OpenPage, tmp_path: Path
) -> None:
    for name in ("asked.png", "aside.png"):
        (tmp_path / name).write_bytes(encoded(plain(300, 200)))
    async with serve() as world:
        await open_ready(page, world)
        await page.locator("#files").set_input_files(tmp_path / "asked.png")
        await expect(page.locator(".chip")).to_have_attribute("data-state", "ready")
        await ask(page, "Which color?")
        await expect(page.locator(".measures dl")).to_be_visible()
        await page.locator("#files").set_input_files(tmp_path / "aside.png")
        await expect(page.locator(".chip")).to_have_attribute("data-state", "ready")
        await page.get_by_role("button", name="Edit and ask again").click()
        await expect(page.locator(".chip b")).to_have_text("asked.png")
        assert await uploads(world) == ["aside.png", "asked.png"]
        await until_uploads(world, ["asked.png"])


async def uploads(world: ServerFixture) -> list[str]:
    return sorted(file["filename"] for file in (await world.client.get("/v1/files")).json()["data"])


async def until_uploads(world: ServerFixture, names: list[str]) -> None:
    async with asyncio.timeout(30):
        while await uploads(world) != names:
            await asyncio.sleep(0.1)
