"""What is kept in the browser: over a reload, a server that is killed, a full disk, a video of 300 MB."""

import json
import socket
from pathlib import Path

from playwright.async_api import Page, expect

from tests.browser.conftest import TIMEOUT_MS, OpenPage, ask, open_ready, sent_by
from tests.browser.test_conversation import endless, forget_all
from tests.support.fakes import FakeEngine
from tests.support.images import encoded, photo, plain, real_video

FREE_BOX = b"\x00\x00\x00\x00free"
"""Of an MP4, up to the end of the file."""


async def test_what_was_open_comes_back_from_a_slow_storage(page: Page, serve: OpenPage) -> None:
    await page.add_init_script(
        "const query = navigator.locks.query.bind(navigator.locks);"
        "navigator.locks.query = () => new Promise((resolve) => setTimeout(resolve, 4000)).then(query);"
    )
    async with serve() as world:
        await open_ready(page, world)
        await ask(page, "Hi.")
        await expect(page.locator(".measures dl")).to_be_visible()
        await page.reload()
        await expect(page.locator("#model")).to_have_attribute("data-state", "ready")
        await expect(page.locator(".answer .prose")).to_have_text("Hello, world!")
        await page.reload()
        await page.get_by_label("Question", exact=True).fill("Something else")
        await page.wait_for_timeout(5000)
        await expect(page.locator(".answer")).to_have_count(0)
        await expect(page.get_by_label("Question", exact=True)).to_have_value("Something else")


async def test_a_reload_brings_all_back(page: Page, serve: OpenPage, tmp_path: Path) -> None:
    (tmp_path / "rocket.png").write_bytes(encoded(photo()))
    async with serve() as world:
        await open_ready(page, world)
        await page.get_by_text("Settings", exact=True).click()
        await page.get_by_label("max_pixels", exact=True).fill("100352")
        await page.locator("#files").set_input_files(tmp_path / "rocket.png")
        await expect(page.locator(".seen canvas")).to_be_visible()
        await ask(page, "What is it?")
        await expect(page.locator(".measures dl")).to_be_visible()
        await page.get_by_label("Question", exact=True).fill("Half a thou")
        await page.reload()
        await expect(page.locator("#model")).to_have_attribute("data-state", "ready")
        await expect(page.locator(".question p")).to_have_text("What is it?")
        await expect(page.locator(".answer .prose")).to_have_text("Hello, world!")
        await expect(page.locator("[data-fact=prompt]")).to_be_visible()
        await expect(page.locator(".question .thumb")).to_be_visible()
        await expect(page.get_by_label("Question", exact=True)).to_have_value("Half a thou")
        assert await page.locator("#settings [name=max_pixels]").input_value() == "100352"
        kept = await page.evaluate(KEPT)
        assert len(json.dumps(kept)) < 60_000 and '"file_id"' in json.dumps(kept)  # no media, only a preview
        # The server still has the file, so the picture is whole again, and goes along.
        await expect(page.locator(".question .media-open")).to_be_visible()
        body = await sent_by(page, lambda: ask(page, "And now?"))
        assert [part["type"] for part in body["messages"][0]["content"]] == ["file", "text"]
        await expect(page.locator(".measures dl")).to_have_count(2)
        assert [len(prompt.media) for prompt in world.engine.prompts] == [1, 1]


KEPT = """() => new Promise((resolve) => {
  const opening = indexedDB.open("tessera");
  opening.onsuccess = () => {
    const all = opening.result.transaction("conversations").objectStore("conversations").getAll();
    all.onsuccess = () => resolve(all.result);
  };
})"""


async def test_a_file_that_is_nowhere_any_more_is_asked_for(page: Page, serve: OpenPage, tmp_path: Path) -> None:
    (tmp_path / "plain.png").write_bytes(encoded(plain(300, 200)))
    async with serve() as world:
        await open_ready(page, world)
        await page.locator("#files").set_input_files(tmp_path / "plain.png")
        await expect(page.locator(".seen canvas")).to_be_visible()
        await ask(page, "Which color?")
        await expect(page.locator(".measures dl")).to_be_visible()
        await forget_all(page, world)
        await page.reload()
        await expect(page.locator(".question .gone")).to_contain_text("No longer on the server.")
        await page.get_by_role("button", name="As code").click()
        await expect(page.locator("#code-text")).to_contain_text('file=@"plain.png"')
        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="Again", exact=True).click()
        await expect(page.locator("#toast")).to_contain_text("plain.png is no longer on the server")
        await expect(page.locator(".answer .prose")).to_have_text("Hello, world!")  # not lost for nothing
        await page.get_by_label("Question", exact=True).fill("And now?")
        await expect(page.locator("#cost")).to_contain_text("plain.png is no longer on the server")
        await expect(page.get_by_role("button", name="Send")).to_be_disabled()
        async with page.expect_file_chooser() as chooser:
            await page.locator(".question").get_by_role("button", name="Choose the file again").click()
        await (await chooser.value).set_files(tmp_path / "plain.png")
        await expect(page.locator("#cost")).to_contain_text("tokens")  # once it is there
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator(".measures dl")).to_have_count(2)
        assert [len(prompt.media) for prompt in world.engine.prompts] == [1, 1]


async def test_a_reload_in_the_middle_of_an_answer_keeps_what_had_come(page: Page, serve: OpenPage) -> None:
    async with serve(FakeEngine(script=endless)) as world:
        await open_ready(page, world)
        await ask(page, "Go.")
        await expect(page.locator(".answer .prose")).to_contain_text("word word word")
        await page.wait_for_timeout(1000)
        await page.reload()
        await expect(page.locator(".answer .prose")).to_contain_text("word word word")
        await expect(page.get_by_role("button", name="Continue")).to_be_visible()


async def test_a_killed_server_takes_nothing_with_it(page: Page, serve: OpenPage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with serve(FakeEngine(script=endless), port=port) as world:
        await open_ready(page, world)
        await ask(page, "Go.")
        await expect(page.locator(".answer .prose")).to_contain_text("word word")
        world.stop()
        world.stop()
        await expect(page.locator(".answer").get_by_role("alert")).to_be_visible()
        await page.get_by_label("Question", exact=True).fill("Half a thou")
        await page.wait_for_timeout(1000)
    await page.goto("about:blank")
    async with serve(port=port) as world:
        await open_ready(page, world)
        await expect(page.locator(".answer .prose")).to_contain_text("word word")
        await expect(page.get_by_label("Question", exact=True)).to_have_value("Half a thou")
        await page.get_by_role("button", name="Continue").click()
        await expect(page.locator(".answer .prose")).to_contain_text("Hello, world!")


async def test_a_browser_that_keeps_nothing_says_so_and_works_on(page: Page, serve: OpenPage) -> None:
    await page.add_init_script(
        """IDBObjectStore.prototype.put = () => { throw new DOMException("full", "QuotaExceededError"); };"""
    )
    async with serve() as world:
        await open_ready(page, world)
        await ask(page, "Hi.")
        await expect(page.locator("#toast")).to_contain_text("keeps no more")
        await expect(page.locator(".measures dl")).to_be_visible()
        await ask(page, "And now?")
        await expect(page.locator(".measures dl")).to_have_count(2)


async def test_a_video_of_300_mb_is_asked_about_and_kept_as_a_small_preview(
    page: Page, serve: OpenPage, tmp_path: Path
) -> None:
    (tmp_path / "long.mp4").write_bytes(real_video().read_bytes() + FREE_BOX)
    with (tmp_path / "long.mp4").open("r+b") as file:
        file.truncate(300 << 20)
    async with serve() as world:
        await open_ready(page, world)
        await page.locator("#files").set_input_files(tmp_path / "long.mp4")
        await expect(page.locator(".strip")).to_have_attribute("aria-busy", "false", timeout=3 * TIMEOUT_MS)
        await ask(page, "What happens?")
        await expect(page.locator(".measures dl")).to_be_visible()
        await page.reload()
        await expect(page.locator(".answer .prose")).to_have_text("Hello, world!")
        await expect(page.locator(".question .thumb")).to_be_visible()
        assert len(json.dumps(await page.evaluate(KEPT))) < 100_000
        await ask(page, "And then?")
        await expect(page.locator(".measures dl")).to_have_count(2)
        assert [len(prompt.media) for prompt in world.engine.prompts] == [1, 1]
