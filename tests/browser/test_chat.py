"""Asking: answers that stream, stop and fail, in a real browser."""

import asyncio
import json
import re

import pytest
from playwright.async_api import BrowserContext, Page, expect

from model_executor.engine import EngineState, Prompt, SamplingParams
from tests.browser.conftest import OpenPage, ask, open_ready
from tests.support.fakes import MODEL, FakeEngine, Step, say
from tests.support.waiting import until


async def test_an_answer_appears_while_it_is_written(page: Page, serve: OpenPage) -> None:
    go_on = asyncio.Event()
    first, second = say("A *first* part", " and a second.")
    engine = FakeEngine(script=lambda *_: [first, go_on, second])
    async with serve(engine) as world:
        await open_ready(page, world)
        await expect(page.locator("#model")).to_contain_text(MODEL)
        await ask(page, "What do you see?")
        answer = page.locator(".answer")
        await expect(answer.locator("em")).to_have_text("first")  # the second part is made only after this
        await expect(page.get_by_role("button", name="Stop")).to_be_visible()
        go_on.set()
        await expect(answer.locator(".prose")).to_have_text("A first part and a second.")
        await expect(page.locator(".question")).to_have_text("YouWhat do you see?")
        await expect(page.get_by_role("button", name="Send")).to_be_visible()
        await expect(page.locator("#announcer")).to_have_text("Answer: A *first* part and a second.")


async def test_times_and_counts_after_an_answer_are_those_of_the_server(page: Page, serve: OpenPage) -> None:
    async with serve(FakeEngine(script=lambda *_: [0.3, *say("a", "b"), 2.0, *say(" c")])) as world:
        await open_ready(page, world)
        await ask(page, "Hi.")
        answered = await world.ask(
            messages=[{"role": "user", "content": "Hi."}], skip_special_tokens=False, temperature=0
        )
        usage = answered.json()["usage"]
        facts = page.locator(".measures")
        await expect(facts.locator("[data-fact=prompt] dd")).to_have_text(f"{usage['prompt_tokens']}")
        await expect(facts.locator("[data-fact=answer] dd")).to_have_text(f"{usage['completion_tokens']}")
        waited = await facts.locator("[data-fact=first-token] dd").inner_text()
        assert 300 <= (float(waited.split()[0]) * (1 if waited.endswith("ms") else 1000)) < 20_000
        speed = await facts.locator("[data-fact=speed] dd").inner_text()
        # Two tokens came after the first, the last two seconds later, as far as a busy machine delivers both alike.
        assert 0 < float(speed.split()[0]) <= 2 / 1.5


async def test_what_was_said_goes_with_the_next_question(page: Page, serve: OpenPage) -> None:
    async with serve(FakeEngine(max_model_len=4096)) as world:
        await open_ready(page, world)
        await ask(page, "First?")
        await expect(page.locator(".measures")).to_have_count(1)
        async with page.expect_request("**/v1/chat/completions") as request:
            await ask(page, "Second?")
        sent = json.loads((await request.value).post_data or "")
        assert [(message["role"], message["content"]) for message in sent["messages"]] == [
            ("user", "First?"),
            ("assistant", "Hello, world!"),
            ("user", "Second?"),
        ]
        await expect(page.locator(".measures")).to_have_count(2)
        await page.get_by_role("button", name="New conversation").click()
        await expect(page.locator(".turns > li")).to_have_count(0)
        await expect(page.get_by_role("heading", name="Show it something.")).to_be_visible()


def endless(_: Prompt, __: SamplingParams) -> list[Step]:
    return [step for delta in say(*["word "] * 10_000) for step in (delta, 0.02)]


@pytest.mark.parametrize("how", ["button", "escape"])
async def test_stopping_frees_the_place_and_keeps_what_came(page: Page, serve: OpenPage, how: str) -> None:
    engine = FakeEngine(script=endless)
    async with serve(engine) as world:
        await open_ready(page, world)
        await ask(page, "Go on.")
        await expect(page.locator(".answer .prose")).to_contain_text("word word")
        assert engine.running
        if how == "button":
            await page.get_by_role("button", name="Stop").click()
        else:
            await page.keyboard.press("Escape")
        await expect(page.locator(".answer")).to_contain_text("Stopped.")
        await until(lambda: engine.aborted)
        assert not engine.running
        await expect(page.locator(".answer .prose")).to_contain_text("word word")


async def test_a_refusal_is_told_with_its_field_and_can_be_edited(page: Page, serve: OpenPage) -> None:
    async with serve(FakeEngine(max_model_len=64)) as world:
        await open_ready(page, world)
        await page.get_by_text("Settings", exact=True).click()
        await page.get_by_label("max_completion_tokens").fill("1000")
        await ask(page, "Hi.")
        refused = await world.ask(max_completion_tokens=1000)
        error = refused.json()["error"]
        problem = page.get_by_role("alert")
        await expect(problem).to_contain_text(error["message"])
        await expect(problem.locator("code")).to_have_text(error["param"])
        await page.get_by_label("max_completion_tokens").fill("")
        await expect(problem.get_by_role("button", name="Try again")).to_have_count(0)  # as it stands it cannot help
        await problem.get_by_role("button", name="Edit and ask again").click()
        await page.get_by_label("Question", exact=True).press("Enter")
        await expect(page.locator(".answer .prose")).to_have_text("Hello, world!")
        await expect(page.get_by_role("alert")).to_have_count(0)


async def test_a_failure_in_the_middle_is_told_below_what_came(page: Page, serve: OpenPage) -> None:
    first, _ = say("The beginning", "")
    async with serve(FakeEngine(script=lambda *_: [first, 0.1, RuntimeError("lost")])) as world:
        await open_ready(page, world)
        await ask(page, "Hi.")
        await expect(page.get_by_role("alert")).to_be_visible()
        await expect(page.locator(".answer .prose")).to_have_text("The beginning")


async def test_a_server_that_is_loading_or_gone_is_shown_as_such(page: Page, serve: OpenPage) -> None:
    engine = FakeEngine()
    async with serve(engine) as world:
        await open_ready(page, world)
        engine.state = EngineState.RESTARTING
        await expect(page.locator("#model")).to_have_attribute("data-state", "restarting")
        engine.state = EngineState.READY
        await expect(page.locator("#model")).to_have_attribute("data-state", "ready")
    await expect(page.locator("#model")).to_have_attribute("data-state", "unreachable")


async def test_a_server_that_takes_requests_and_does_not_answer_is_unreachable(page: Page, serve: OpenPage) -> None:
    async with serve() as world:
        await page.route("**/health", lambda _: asyncio.Event().wait())
        await page.goto(world.url)
        await expect(page.locator("#model")).to_have_attribute("data-state", "unreachable")
        await page.unroute("**/health")
        await expect(page.locator("#model")).to_have_attribute("data-state", "ready")


async def test_an_answer_cannot_bring_code_pictures_or_styles(context: BrowserContext, serve: OpenPage) -> None:
    page = await context.new_page()  # not the fixture, which does not let a page try what its policy forbids
    evil = (
        '<img src=x onerror="window.hurt=1"> <script>window.hurt=1</script> ![x](http://127.0.0.1:9/x.png) '
        '[a](javascript:window.hurt=1) [b](https://example.org/) <b style="top:0" onclick="window.hurt=1">c</b>'
        ' <iframe src="//127.0.0.1:9"></iframe><svg onload="window.hurt=1"></svg> <form action="//127.0.0.1:9"></form>'
    )
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    async with serve(FakeEngine(script=lambda *_: list(say(evil, " end")))) as world:
        await open_ready(page, world)
        await ask(page, "Hi.")
        prose = page.locator(".answer .prose")
        await expect(prose).to_contain_text("end")
        assert await page.evaluate("window.hurt") is None
        assert await prose.locator("img, script, iframe, svg, form, style, [style], [onclick]").count() == 0
        links = await prose.locator("a").evaluate_all("all => all.map(link => [link.getAttribute('href'), link.rel])")
        assert [href for href, _ in links] == [None, "https://example.org/"]
        assert "noopener" in links[1][1]
        assert not [url for url in asked if not url.removeprefix("blob:").startswith(world.url)]
    await page.close()


async def test_settings_that_are_filled_in_are_sent_and_others_are_not(page: Page, serve: OpenPage) -> None:
    async with serve() as world:
        await open_ready(page, world)
        await page.get_by_text("Settings", exact=True).click()
        await page.get_by_label("System message").fill("Be brief.")
        for name, value in {"temperature": "0.5", "top_p": "0.9", "seed": "7", "stop": "END"}.items():
            await page.get_by_label(name, exact=True).fill(value)
        async with page.expect_request("**/v1/chat/completions") as request:
            await ask(page, "Hi.")
        sent = json.loads((await request.value).post_data or "")
        assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
        given = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": "END"}
        own = {"model", "messages", "stream", "stream_options", "include", "skip_special_tokens"}
        assert {name: value for name, value in sent.items() if name not in own} == given
        await expect(page.locator(".measures")).to_be_visible()
        await page.get_by_label("top_p").fill("2")
        await ask(page, "Again.")
        assert await page.get_by_label("top_p").evaluate("field => field.validationMessage")
        await expect(page.locator(".question")).to_have_count(1)


async def test_a_key_that_is_needed_is_asked_for_and_sent(page: Page, serve: OpenPage) -> None:
    async with serve(api_key="secret") as world:
        await page.goto(world.url)
        await expect(page.get_by_role("heading", name="This server asks for a key")).to_be_visible()
        await expect(page.get_by_label("API key")).to_be_focused()
        await page.get_by_label("API key").fill("wrong")
        await page.keyboard.press("Enter")
        await expect(page.locator("#key-problem")).to_have_text("This key is not valid.")
        await expect(page.locator("#model")).to_have_text("This key is not valid.")
        await page.get_by_label("API key").fill("secret")
        await page.get_by_role("button", name="Connect").click()
        await expect(page.locator("#model")).to_have_attribute("data-state", "ready")
        await ask(page, "Hi.")
        await expect(page.locator(".answer .prose")).to_have_text("Hello, world!")
        await page.get_by_role("button", name="As code").click()
        for name in ("curl", "Python", "JavaScript"):
            await page.get_by_role("tab", name=name).click()
            code = await page.locator("#code-text").inner_text()
            assert "TESSERA_API_KEY" in code and not re.search("secret", code)
