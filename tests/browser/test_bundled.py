"""The whole way: the page on a server with the model that ships along. Answers are those the API gives to the same."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import SCREENSHOTS
from tests.support.images import real_video
from tests.support.serving import RunningServer

pytestmark = pytest.mark.engine
PICTURE = Path(__file__).parent.parent.parent / "docs" / "circle.png"


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that nobody told which model to serve."""
    settings = {"TESSERA_DATA_DIR": str(tmp_path_factory.mktemp("data"))}
    with RunningServer(None, settings) as server:
        yield server


async def ask(page: Page, server: RunningServer, question: str, *files: Path) -> None:
    """Ask on the page, and hold the answer shown to the one the API gives to the same request, whole and unstreamed."""
    await page.goto(server.url)
    await expect(page.locator("#model")).to_have_attribute("data-state", "ready")
    if files:
        await page.locator("#files").set_input_files(files)
        await expect(page.locator(".seen")).to_have_count(len(files))
    await page.get_by_label("Question", exact=True).fill(question)
    async with page.expect_request("**/v1/chat/completions") as request:
        await page.keyboard.press("Enter")
    await expect(page.locator(".measures")).to_be_visible()
    body = json.loads((await request.value).post_data or "")
    for name in ("stream", "stream_options", "include"):
        del body[name]
    async with httpx.AsyncClient(timeout=120) as client:
        answer = (await client.post(f"{server.url}/v1/chat/completions", json=body)).raise_for_status().json()
    content = answer["choices"][0]["message"]["content"]
    readable = "text => import('/playground/js/answer/grounding.js').then(({ readable }) => readable(text))"
    await page.get_by_role("button", name="Copy", exact=True).click()
    assert await page.evaluate("navigator.clipboard.readText()") == await page.evaluate(readable, content)
    assert await page.locator(".boxes rect.box").count() == (content.count("<|box_start|>") if files else 0)
    shown = await page.locator("[data-fact=prompt] dd, [data-fact=answer] dd").all_inner_texts()
    usage = answer["usage"]
    counted = [int(text.split(", ")[0].replace(",", "")) for text in shown]
    assert counted == [usage["prompt_tokens"], usage["completion_tokens"]]


async def test_a_question(page: Page, bundled: RunningServer) -> None:
    await ask(page, bundled, "Who are you?")
    assert (await page.locator(".answer .prose").inner_text()).strip()


async def test_a_question_about_a_picture(page: Page, bundled: RunningServer) -> None:
    await ask(page, bundled, "Find the red circle.", PICTURE)
    await page.screenshot(path=SCREENSHOTS / "bundled-picture.png")


async def test_a_question_about_a_clip(page: Page, bundled: RunningServer) -> None:
    await ask(page, bundled, "What happens?", real_video())
    await expect(page.locator(".strip")).to_have_attribute("aria-busy", "false")
    await page.screenshot(path=SCREENSHOTS / "bundled-clip.png")
