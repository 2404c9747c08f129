"""The page explains itself: keys, servers that load, are lost, come back changed, and why nothing can be sent."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from model_executor.engine import EngineState
from tests.browser.conftest import SCREENSHOTS, OpenPage, ask, open_ready, sent_by
from tests.support.fakes import MODEL, FakeEngine, say
from tests.support.images import encoded, photo, plain, real_video
from tests.support.world import ServerFixture

PHONE = {"width": 390, "height": 844}


async def test_a_second_server_takes_pictures_in_the_request(page: Page, serve: OpenPage, tmp_path: Path) -> None:
    (tmp_path / "plain.png").write_bytes(encoded(plain(300, 200)))
    async with serve() as first, serve() as second:
        upload = await first.client.post(
            "/v1/files", data={"purpose": "vision"}, files={"file": encoded(plain(300, 200))}
        )
        assert upload.status_code == 200  # so the folder is the first server's
        await open_ready(page, second)
        await page.locator("#files").set_input_files(tmp_path / "plain.png")
        await expect(page.locator(".chip")).to_have_attribute("data-state", "ready")
        await expect(page.locator(".chip .status")).to_contain_text("sent with each request")
        await expect(page.locator(".seen canvas")).to_be_visible()
        await page.screenshot(path=SCREENSHOTS / "second-server.png")
        body = await sent_by(page, lambda: ask(page, "Which color?"))
        assert body["messages"][0]["content"][0]["file"]["file_data"].startswith("data:image/png;base64,")
        await expect(page.locator(".answer .prose")).to_have_text("Hello, world!")
        assert len(second.engine.prompts[0].media) == 1


async def test_a_wrong_key_is_told_apart_from_none(page: Page, serve: OpenPage, tmp_path: Path) -> None:
    (tmp_path / "plain.png").write_bytes(encoded(plain(300, 200)))
    await page.set_viewport_size({"width": PHONE["width"], "height": PHONE["height"]})
    async with serve(api_key="secret") as world:
        await page.goto(world.url)
        card = page.locator("#key-card")
        await expect(card).to_contain_text("This server asks for a key")
        await expect(page.locator("#cost")).to_have_text("The server asks for a key")
        for name in ("#new", "#panel-toggle", "#history-open"):
            shown = await page.locator(name).bounding_box()
            assert shown is not None and shown["width"] >= 32
        await page.screenshot(path=SCREENSHOTS / "phone-key.png")
        await page.locator("#files").set_input_files(tmp_path / "plain.png")
        await expect(page.locator(".chip")).to_have_attribute("data-state", "failed")
        await page.get_by_label("API key").fill("wrong")
        await card.get_by_role("button", name="Connect").click()
        await expect(page.locator("#key-problem")).to_have_text("This key is not valid.")
        await expect(page.locator("#model-text")).to_have_text("This key is not valid.")
        await page.get_by_label("API key").fill("secret")
        await page.keyboard.press("Enter")
        await expect(card).to_be_hidden()
        await expect(page.locator(".chip")).to_have_attribute("data-state", "ready")  # sent again by itself
    await page.set_viewport_size({"width": 1280, "height": 800})


async def test_a_key_can_be_remembered_for_other_tabs(page: Page, serve: OpenPage) -> None:
    async with serve(api_key="secret") as world:
        await page.goto(world.url)
        await page.get_by_label("API key").fill("secret")
        await page.get_by_label("Remember it in this browser").check()
        await page.keyboard.press("Enter")
        await expect(page.locator("#model")).to_have_attribute("data-state", "ready")
        other = await page.context.new_page()
        await open_ready(other, world)
        await other.close()


async def test_a_connection_that_breaks_keeps_the_half_answer(page: Page, serve: OpenPage) -> None:
    async with serve(half_an_answer()) as world, relay(world) as (url, cut):
        await page.goto(url)
        await expect(page.locator("#model")).to_have_attribute("data-state", "ready")
        await ask(page, "Hi.")
        await expect(page.locator(".answer .prose")).to_have_text("The beginning")
        cut()
        await expect_half_an_answer(page, "The connection broke off.")


async def test_a_server_that_stops_says_so_and_the_half_answer_is_kept(page: Page, serve: OpenPage) -> None:
    async with serve(half_an_answer()) as world:
        await open_ready(page, world)
        await ask(page, "Hi.")
        await expect(page.locator(".answer .prose")).to_have_text("The beginning")
        world.stop()
        world.stop()  # the second one cuts the answers that are still running
        await expect_half_an_answer(page, "The server is stopping.")


def half_an_answer() -> FakeEngine:
    first, second = say("The beginning", " and the end.")
    return FakeEngine(script=lambda *_: [first, asyncio.Event(), second])


async def expect_half_an_answer(page: Page, reason: str) -> None:
    await expect(page.locator(".answer").get_by_role("alert")).to_contain_text(reason)
    await expect(page.locator(".answer .prose")).to_have_text("The beginning")
    await expect(page.locator("#model")).to_have_attribute("data-state", "unreachable", timeout=8_000)  # no poll later
    await page.get_by_label("Question", exact=True).fill("And then?")
    await expect(page.locator("#cost")).to_have_text("The server is away: sent when it is back")


@asynccontextmanager
async def relay(world: ServerFixture) -> AsyncIterator[tuple[str, Callable[[], None]]]:
    """A way to the server that can be cut like a cable."""
    writers: list[asyncio.StreamWriter] = []

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await asyncio.open_connection("127.0.0.1", world.client.base_url.port)
        writers.extend((writer, questions))
        await asyncio.gather(pipe(reader, questions), pipe(answers, writer))

    def cut() -> None:
        listener.close()
        for writer in writers:
            writer.transport.abort()

    listener = await asyncio.start_server(connected, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/", cut
    cut()


async def test_a_question_waits_for_the_server_which_may_come_back_as_another(page: Page, serve: OpenPage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with serve(port=port) as world:
        await open_ready(page, world)
        await ask(page, "Hi.")
        await expect(page.locator(".measures dl")).to_be_visible()
    await expect(page.locator("#model")).to_have_attribute("data-state", "unreachable")
    await ask(page, "Still there?")
    await expect(page.locator("#cost")).to_have_text("Waiting; sent as soon as the server is ready")
    await expect(page.locator(".question")).to_have_count(1)
    async with serve(port=port, served_model_name="another-name") as world:
        await expect(page.locator("#model")).to_contain_text("another-name")
        await expect(page.locator(".measures dl")).to_have_count(2)
        await expect(page.locator(".question")).to_have_count(2)
        await expect(page.get_by_role("alert")).to_have_count(0)
        assert len(world.engine.prompts) == 1


async def test_an_engine_that_restarts_is_waited_for(page: Page, serve: OpenPage) -> None:
    engine = FakeEngine()
    async with serve(engine) as world:
        await open_ready(page, world)
        engine.state = EngineState.RESTARTING
        await expect(page.locator("#model")).to_have_attribute("data-state", "restarting")
        await ask(page, "Hi.")
        await expect(page.locator("#cost")).to_have_text("Waiting; sent as soon as the server is ready")
        engine.state = EngineState.READY
        await expect(page.locator(".answer .prose")).to_have_text("Hello, world!")


async def test_why_nothing_can_be_sent_stands_beside_the_button(page: Page, serve: OpenPage) -> None:
    async with serve() as world:
        await open_ready(page, world)
        send = page.get_by_role("button", name="Send")
        await expect(send).to_be_disabled()
        await expect(page.locator("#cost")).to_have_text("Type a question")
        await page.get_by_label("Question", exact=True).fill("Hi.")
        await expect(page.locator("#cost")).to_contain_text("tokens")
        await expect(send).to_be_enabled()


async def test_too_many_tokens_are_told_before_and_mended_by_fewer_pixels(
    page: Page, serve: OpenPage, tmp_path: Path
) -> None:
    (tmp_path / "rocket.png").write_bytes(encoded(photo()))
    async with serve(FakeEngine(max_model_len=1000)) as world:
        await open_ready(page, world)
        await page.locator("#files").set_input_files(tmp_path / "rocket.png")
        await page.get_by_label("Question", exact=True).fill("What is it?")
        await expect(page.locator("#cost")).to_contain_text("tokens too many")
        await expect(page.get_by_role("button", name="Send")).to_be_disabled()
        await page.get_by_role("button", name="lower max_pixels to").click()
        await expect(page.locator("#cost")).not_to_contain_text("too many")
        await expect(page.get_by_role("button", name="Send")).to_be_enabled()
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator(".answer .prose")).to_have_text("Hello, world!")
        assert len(world.engine.prompts[0].token_ids) < 1000


async def test_what_can_never_be_used_is_said_in_peoples_words_and_not_tried_again(
    page: Page, serve: OpenPage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESSERA_MEDIA__MAX_IMAGE_BYTES", str(1 << 20))
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nand nothing more")
    (tmp_path / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(3_000_000))
    async with serve() as world:
        await open_ready(page, world)
        chips = page.locator(".chip")
        await page.locator("#files").set_input_files(tmp_path / "broken.png")
        await expect(chips).to_have_attribute("data-state", "failed")
        await page.locator("#files").set_input_files([tmp_path / "notes.txt", tmp_path / "large.png"])
        await expect(page.locator(".chip[data-state=failed]")).to_have_count(3)
        for chip, text in zip(
            await chips.all(),
            ("The file is damaged", "This is neither a picture nor a video.", "3 MB; pictures up to 1 MB are taken."),
            strict=True,
        ):
            await expect(chip.locator(".status")).to_contain_text(text)
            await expect(chip.get_by_role("button", name="Try again")).to_be_hidden()
            await expect(chip.locator(".sign")).to_be_visible()


async def test_a_video_without_a_question_is_described(page: Page, serve: OpenPage) -> None:
    async with serve() as world:
        await open_ready(page, world)
        await page.locator("#files").set_input_files(real_video())
        await expect(page.get_by_role("button", name="Send")).to_be_enabled()
        body = await sent_by(page, lambda: page.get_by_role("button", name="Send").click())
        assert body["messages"][0]["content"][-1] == {"type": "text", "text": "Describe this."}
        await expect(page.locator(".question > p")).to_have_text("Describe this.")


async def test_the_panel_tells_of_the_conversation_after_an_answer(page: Page, serve: OpenPage) -> None:
    async with serve() as world:
        await open_ready(page, world)
        await ask(page, "Hi.")
        await expect(page.locator("#sees-what")).to_have_text("Of the conversation so far")
        messages = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello, world!"}]
        told = await world.client.post(
            "/v1/chat/completions/preview", json={"model": MODEL, "messages": messages, "temperature": 0}
        )
        await expect(page.locator("#prompt-tokens")).to_have_text(str(told.json()["prompt_tokens"]))
