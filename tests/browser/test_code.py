"""Requests as code: what the page shows is run, and gets what the page got."""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from model_executor.engine import Prompt, SamplingParams
from tests.browser.conftest import OpenPage
from tests.support.fakes import FakeEngine, Step, say
from tests.support.images import encoded, plain

NAME = 'it\'s a "pic"; $HOME.png'
QUESTION = "It's \"how\" many \\ $HOME `x` — déjà?\nTwo lines: 'a'."
KEY = "secret"


def tells_what_it_got(prompt: Prompt, limits: SamplingParams) -> list[Step]:
    """An engine that answers with the request as it arrived there."""
    return list(say(described(prompt, limits)))


def described(prompt: Prompt, limits: SamplingParams) -> str:
    """Everything of a request that its code has to repeat."""
    media = [item.digest for item in prompt.media]
    return json.dumps({"ids": list(prompt.token_ids), "media": media, "top_k": limits.top_k, "seed": limits.seed})


async def run(command: list[str], folder: Path, environment: Mapping[str, str]) -> str:
    """What a program prints."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env={**os.environ, **environment}, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


@pytest.mark.parametrize("language", ["curl", "Python", "JavaScript"])
async def test_the_code_asks_what_the_page_asked(page: Page, serve: OpenPage, tmp_path: Path, language: str) -> None:
    (tmp_path / NAME).write_bytes(encoded(plain(300, 200)))
    async with serve(FakeEngine(script=tells_what_it_got), api_key=KEY) as world:
        await page.goto(world.url)
        await page.get_by_label("API key").fill(KEY)
        await page.keyboard.press("Enter")
        await expect(page.locator("#model")).to_have_attribute("data-state", "ready")
        await page.get_by_text("Settings", exact=True).click()
        await page.get_by_label("top_k", exact=True).fill("40")
        await page.get_by_label("seed").fill("7")
        await page.get_by_label("max_pixels").fill("50000")
        await page.locator("#files").set_input_files(tmp_path / NAME)
        await expect(page.locator(".seen")).to_be_visible()
        await page.get_by_label("Question", exact=True).fill(QUESTION)
        await page.keyboard.press("Enter")
        await expect(page.locator(".measures")).to_be_visible()
        (prompt,), (limits,) = world.engine.prompts, world.engine.limits
        await page.get_by_role("button", name="As code").click()
        await page.get_by_role("tab", name=language).click()
        await page.get_by_role("button", name="Copy", exact=True).last.click()
        program = await page.evaluate("navigator.clipboard.readText()")
        assert program == await page.locator("#code-text").text_content() and KEY not in program
        output = printed = await run(command_of(language, program, tmp_path), tmp_path, {"TESSERA_API_KEY": KEY})
        if language == "curl":
            output = json.loads(output)["choices"][0]["message"]["content"]
        assert output.strip() == described(prompt, limits), printed


def command_of(language: str, program: str, folder: Path) -> list[str]:
    """How a program is run; skips where what it needs is not there."""
    if language == "curl":
        if shutil.which("curl") is None:
            pytest.skip("no curl")
        return ["bash", "-euc", program]
    if language == "Python":
        return [sys.executable, "-c", program]
    modules = os.environ.get("NODE_MODULES")
    if shutil.which("node") is None or modules is None:
        pytest.skip("no Node, or NODE_MODULES does not name a node_modules folder with openai")
    (folder / "node_modules").symlink_to(modules)
    (folder / "ask.mjs").write_text(program, "utf-8")
    return ["node", "ask.mjs"]
