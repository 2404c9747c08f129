"""A real browser on the page, and a server whose media are real and whose engine follows a script.

Chromium is looked for on the path. Where there is none, the tests are skipped; `REQUIRE_BROWSER=1` makes that a
failure.
"""

import json
import os
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from model_executor.checkpoint.processor_files import DEFAULT_IMAGE_MAX_PIXELS, DEFAULT_IMAGE_MIN_PIXELS
from model_executor.engine import EngineState
from model_executor.families.family import Family
from model_executor.families.qwen2_vl import QWEN2_VL
from model_executor.processor.tokenizer import Tokenizer
from server.app import create_app
from server.core.settings import MediaSettings, Settings
from server.generation.model_service import ServedModel
from server.media.preprocessor import MediaPreprocessor
from tests.support.fakes import MODEL, FakeEngine
from tests.support.waiting import until
from tests.support.world import ServerFixture, serve_live

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
TIMEOUT_MS = 60_000
"""Far more than anything takes on an idle machine."""
SCREENSHOTS = Path(__file__).parent.parent.parent / "runs" / "screenshots"
"""Where tests leave pictures of the page for people to look at."""
expect.set_options(timeout=TIMEOUT_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="package")
def chromium() -> str:
    """The browser's path."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        message = "no Chromium on the path: apt-get install chromium"
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture(scope="package")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """One process for all tests."""
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=chromium, headless=True, args=ARGUMENTS)
        yield opened
        await opened.close()


@pytest.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A profile nobody has used, which may use its camera (a drawn one) and the clipboard.

    Each test gets its own: what a page keeps is kept by origin, and the port of one test's server may be another's.
    """
    opened = await browser.new_context(
        viewport={"width": 1280, "height": 800},
        color_scheme="light",
        reduced_motion="reduce",
        permissions=["clipboard-read", "clipboard-write"],
    )
    opened.set_default_timeout(TIMEOUT_MS)
    yield opened
    await opened.close()


@pytest.fixture
async def page(context: BrowserContext) -> AsyncIterator[Page]:
    """An empty tab. The test fails when its page breaks the policy it came with, or raises what nobody handles."""
    opened = await context.new_page()
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(error.stack or str(error)))
    opened.on("console", lambda said: problems.append(said.text) if "Security Policy" in said.text else None)
    opened.on("requestfailed", lambda asked: problems.append(asked.url) if "127.0.0.1" not in asked.url else None)
    yield opened
    await opened.close()
    assert not problems


@pytest.fixture(scope="package")
async def media() -> AsyncIterator[MediaPreprocessor]:
    """Real workers, one pool for all tests: starting them takes seconds."""
    service = MediaPreprocessor(
        MediaSettings(), image_min_pixels=DEFAULT_IMAGE_MIN_PIXELS, image_max_pixels=DEFAULT_IMAGE_MAX_PIXELS
    )
    await service.start()
    yield service
    await service.close()


OpenPage = Callable[..., AbstractAsyncContextManager[ServerFixture]]


@pytest.fixture
def serve(tokenizer: Tokenizer, media: MediaPreprocessor, tmp_path: Path) -> Iterator[OpenPage]:
    """Serves the page: real media, and an engine that follows a script; settings by name, a port where it matters.

    A server's port is nobody else's until the test ends, so that its page finds nothing where the server was.
    """
    ports = ExitStack()

    @asynccontextmanager
    async def served(
        engine: FakeEngine | None = None,
        *,
        adapters: tuple[str, ...] = (),
        family: Family = QWEN2_VL,
        description: str | None = None,
        port: int = 0,
        **changes: Any,
    ) -> AsyncIterator[ServerFixture]:
        engine = engine or FakeEngine()
        settings = Settings(**{"served_model_name": MODEL, "data_dir": tmp_path / "data", **changes})

        @asynccontextmanager
        async def open_model() -> AsyncIterator[ServedModel]:
            end = tokenizer.special_id("<|im_end|>")
            assert end is not None
            yield ServedModel(
                settings.model_name,
                0,
                engine,
                media,
                tokenizer,
                chat_template=None,
                end_token_ids=(end,),
                adapters=adapters,
                family=family,
                description=description,
            )

        app = create_app(settings, open_model)
        kept = ports.enter_context(socket.socket())  # bound, and never listening
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", port))
        async with serve_live(app, settings, port=kept.getsockname()[1]) as (client, stop), client:
            await until(lambda: app.state.service.state is EngineState.READY)
            yield ServerFixture(client, app, engine, stop=stop)

    with ports:
        yield served


async def open_ready(page: Page, world: ServerFixture) -> None:
    """Open the page of a server and wait until it knows the model."""
    await page.goto(world.url)
    await expect(page.locator("#model")).to_have_attribute("data-state", "ready")


async def ask(page: Page, text: str) -> None:
    """Type a question and send it."""
    await page.get_by_label("Question", exact=True).fill(text)
    await page.get_by_label("Question", exact=True).press("Enter")


async def sent_by(page: Page, act: Callable[[], Awaitable[Any]]) -> Any:
    """The body of the chat request that the page sends when something is done."""
    async with page.expect_request("**/v1/chat/completions") as request:
        await act()
    return json.loads((await request.value).post_data or "")
