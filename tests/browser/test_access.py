"""Everybody can use the page: by keyboard alone, with a screen reader, in the dark, on a telephone."""

import re
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from model_executor.engine import EngineState
from tests.browser.conftest import SCREENSHOTS, OpenPage, open_ready
from tests.support.fakes import FakeEngine, say
from tests.support.images import encoded, photo, real_video

GROUNDED = (
    "<|object_ref_start|>",
    "the rocket",
    "<|object_ref_end|>",
    "<|box_start|>",
    "(458,290),(540,960)",
    "<|box_end|>",
)
NARROW = {"width": 360, "height": 740}
WIDE = {"width": 1280, "height": 800}


async def violations(page: Page) -> list[str]:
    """What axe-core finds."""
    found: Any = await Axe().run(page)
    return [f"{rule['id']}: {[node['html'][:120] for node in rule['nodes']]}" for rule in found.response["violations"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
async def test_axe_finds_nothing(
    page: Page, serve: OpenPage, tmp_path: Path, scheme: Literal["light", "dark"], size: Any
) -> None:
    (tmp_path / "rocket.png").write_bytes(encoded(photo()))
    await page.emulate_media(color_scheme=scheme)
    await page.set_viewport_size(size)
    name = f"{scheme}-{size['width']}"
    async with serve(FakeEngine(script=lambda *_: list(say(*GROUNDED)), max_model_len=32_768)) as world:
        await open_ready(page, world)
        assert not await violations(page)
        await expect(page.locator("#welcome-title")).to_be_in_viewport()
        await page.screenshot(path=SCREENSHOTS / f"{name}-empty.png")
        await page.locator("#files").set_input_files([tmp_path / "rocket.png", real_video()])
        await page.get_by_label("Question", exact=True).fill("Find the rocket.")
        if size == NARROW:
            await page.get_by_role("button", name="Details").click()
        await expect(page.locator(".strip")).to_have_attribute("aria-busy", "false")
        await page.get_by_text("Settings", exact=True).click()
        await page.get_by_text("Connection and page").click()
        await page.get_by_text("The prompt, piece by piece").click()
        assert not await violations(page)
        await page.screenshot(path=SCREENSHOTS / f"{name}-seen.png")
        if size == NARROW:
            await page.keyboard.press("Escape")
            await expect(page.locator("#panel")).to_be_hidden()
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator(".boxes img")).to_be_visible()
        assert not await violations(page)
        await page.screenshot(path=SCREENSHOTS / f"{name}-answer.png")
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing to scroll sideways
        await page.get_by_role("button", name="As code").click()
        assert not await violations(page)
        await page.keyboard.press("Escape")
        await page.locator(".question").get_by_role("button", name="Enlarge rocket.png").click()
        assert not await violations(page)
        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="Compare").click()
        assert not await violations(page)
        await page.get_by_role("button", name="Ask and compare").click()
        await expect(page.locator(".version .measures dl")).to_have_count(2)
        assert not await violations(page)
        await page.screenshot(path=SCREENSHOTS / f"{name}-compared.png")
        await page.get_by_role("button", name="Conversations").click()
        await expect(page.locator("#history-list li")).to_have_count(1)
        assert not await violations(page)
        await page.screenshot(path=SCREENSHOTS / f"{name}-history.png")


async def test_everything_can_be_done_with_the_keyboard(page: Page, serve: OpenPage) -> None:
    async def focused() -> str:
        name: str = await page.evaluate("document.activeElement.id || document.activeElement.textContent")
        return name

    async def tab_to(name: str) -> None:
        for _ in range(30):
            await page.keyboard.press("Tab")
            if await focused() == name:
                return
        pytest.fail(f"{name} cannot be reached")

    async with serve(FakeEngine(max_model_len=32_768)) as world:
        await open_ready(page, world)
        await page.keyboard.press("Tab")
        assert await focused() == "Skip to the question"
        await page.keyboard.press("Enter")
        await page.keyboard.type("Line one")
        await page.keyboard.press("Shift+Enter")
        await page.keyboard.type("and two")
        assert await page.get_by_label("Question", exact=True).input_value() == "Line one\nand two"
        await page.keyboard.press("Enter")
        await expect(page.locator(".question p")).to_have_text("Line one\nand two", use_inner_text=True)
        await expect(page.locator(".measures dl")).to_be_visible()
        await page.locator("#history-open").focus()
        await tab_to("new")
        await page.keyboard.press("Enter")
        await expect(page.locator(".turns > li")).to_have_count(0)
        assert await focused() == "question"
        await page.locator("#new").focus()
        await tab_to("Describe a pictureWhat is in this picture?")
        await page.keyboard.press("Enter")
        await expect(page.locator(".measures dl")).to_be_visible()
        await page.locator("#new").focus()
        await tab_to("As code")
        await page.keyboard.press("Enter")
        await expect(page.locator("#code")).to_be_visible()
        await page.get_by_role("tab", name="curl").focus()
        await page.keyboard.press("ArrowRight")
        assert await focused() == "Python"
        await expect(page.locator("#code-text")).to_contain_text("from openai import OpenAI")
        await page.keyboard.press("Escape")
        await expect(page.locator("#code")).to_be_hidden()
        assert await focused() == "As code"


async def test_keys_theme_and_description_of_the_api_are_told(page: Page, serve: OpenPage) -> None:
    async with serve() as world:
        await open_ready(page, world)
        await page.get_by_text("Connection and page").click()
        await expect(page.locator(".keys kbd")).to_have_text(["Enter", "Shift", "Enter", "↑", "Esc"])
        document = await page.request.get(await page.locator("#api-document").get_attribute("href") or "")
        assert (await document.json())["info"]["title"] and document.url == f"{world.url}/openapi.json"
        await page.get_by_label("Theme").select_option("dark")
        assert await luminance(page, "body", "backgroundColor") < 0.05
        await page.reload()  # it is remembered
        assert await luminance(page, "body", "backgroundColor") < 0.05
        send = [await luminance(page, "#send", name) for name in ("color", "backgroundColor")]
        await expect(page.get_by_role("button", name="Send")).to_be_disabled()
        assert (max(send) + 0.05) / (min(send) + 0.05) >= 3  # which WCAG asks of what has to be seen


async def luminance(page: Page, selector: str, name: str) -> float:
    """Relative luminance of an element's color, as WCAG 2 defines it."""
    color = await page.locator(selector).evaluate("(element, name) => getComputedStyle(element)[name]", name)
    linear: list[float] = [(part / 255 + 0.055) ** 2.4 / 1.055**2.4 for part in map(int, re.findall(r"\d+", color)[:3])]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_where_something_is_wrong(
    page: Page, serve: OpenPage, tmp_path: Path, scheme: Literal["light", "dark"]
) -> None:
    (tmp_path / "notes.txt").write_text("not a picture")
    await page.emulate_media(color_scheme=scheme)
    call = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    engine = FakeEngine(script=lambda *_: [RuntimeError("lost")])
    async with serve(engine, api_key="secret") as world:
        await page.goto(world.url)
        await page.get_by_label("API key").fill("wrong")
        await page.keyboard.press("Enter")
        await expect(page.locator("#key-problem")).to_have_text("This key is not valid.")
        assert not await violations(page)
        await page.get_by_label("API key").fill("secret")
        await page.keyboard.press("Enter")
        await expect(page.locator("#model")).to_have_attribute("data-state", "ready")
        await page.get_by_label("Question", exact=True).fill("Hi.")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_be_visible()
        assert not await violations(page)
        text = "Formula $x^2$\n\n```python\nfor x in 'ab': # twice\n    pass\n```\n\n| a |\n| --- |\n| 1 |"
        for answer in (text, '{"a": [1, {"b": 2}]}', call):
            engine.script = lambda *_, answer=answer: list(say(answer))
            if answer == call:
                await page.get_by_text("Settings", exact=True).click()
                tool = '[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]'
                await page.get_by_label("Tools (JSON list)").fill(tool)
            await page.get_by_label("Question", exact=True).fill("Hi.")
            await page.keyboard.press("Enter")
            await expect(page.locator(".turns")).not_to_have_attribute("data-running", "")
            await expect(page.locator(".answer").last.locator(".measures dl")).to_be_visible()
        await expect(page.locator(".call")).to_be_visible()
        assert not await violations(page)
        await page.get_by_role("button", name="New conversation").click()
        await page.locator("#files").set_input_files(tmp_path / "notes.txt")
        await expect(page.locator(".chip")).to_have_attribute("data-state", "failed")
        await page.get_by_role("button", name="Camera").click()
        await expect(page.get_by_role("button", name="Take a picture")).to_be_enabled()
        assert not await violations(page)
        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="Conversations").click()
        await page.get_by_role("button", name="Delete").first.click()  # which can be undone for a while
        assert not await violations(page)
        await page.keyboard.press("Escape")
        engine.state = EngineState.RESTARTING
        await expect(page.locator("#model")).to_have_attribute("data-state", "restarting")
        assert not await violations(page)
    await expect(page.locator("#model")).to_have_attribute("data-state", "unreachable")
    assert not await violations(page)
