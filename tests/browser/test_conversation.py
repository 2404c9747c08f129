"""A conversation survives: failed questions, edits, second tries, lost uploads; past ones are found again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.async_api import Page, expect

from model_executor.engine import Prompt, SamplingParams
from tests.browser.conftest import OpenPage, ask, open_ready, sent_by
from tests.support.fakes import FakeEngine, Step, say
from tests.support.images import encoded, plain
from tests.support.world import ServerFixture


def numbered() -> Any:
    """A script that answers `Answer 1.`, then `Answer 2.`, and so on."""
    numbers: Iterator[int] = iter(range(1, 1000))
    return lambda *_: list(say(f"Answer {next(numbers)}."))


def endless(_: Prompt, __: SamplingParams) -> list[Step]:
    return [step for delta in say(*["word "] * 10_000) for step in (delta, 0.02)]


def texts(body: Any) -> list[tuple[str, Any]]:
    return [(message["role"], message["content"]) for message in body["messages"]]


async def test_a_question_that_failed_is_not_sent_along(page: Page, serve: OpenPage) -> None:
    async with serve(FakeEngine(max_model_len=64)) as world:
        await open_ready(page, world)
        await page.get_by_label("Question", exact=True).fill("too long " * 200)
        await page.keyboard.press("Enter")  # before the preview says so
        await expect(page.get_by_role("alert")).to_contain_text("tokens too many")
        body = await sent_by(page, lambda: ask(page, "Hi."))
        assert texts(body) == [("user", "Hi.")]
        await expect(page.locator(".answer .prose")).to_have_text("Hello, world!")
        await expect(page.get_by_role("button", name="Try again")).to_have_count(0)
        await page.get_by_role("alert").get_by_role("button", name="Remove").click()
        await expect(page.get_by_role("alert")).to_have_count(0)
        await expect(page.locator(".question")).to_have_count(1)
        await page.locator("#toast").get_by_role("button", name="Undo").click()
        await expect(page.get_by_role("alert")).to_have_count(1)


async def test_only_the_last_failure_can_be_tried_again_and_not_beside_a_running_answer(
    page: Page, serve: OpenPage
) -> None:
    async with serve(FakeEngine(script=lambda *_: [RuntimeError("lost")])) as world:
        await open_ready(page, world)
        await ask(page, "First?")
        first = page.locator(".question").nth(0)
        await expect(first.get_by_role("button", name="Try again")).to_be_visible()
        world.engine.script = endless
        await ask(page, "Second?")
        await expect(page.locator(".answer .prose")).to_contain_text("word word")
        await expect(first.get_by_role("button", name="Try again")).to_be_hidden()
        await expect(first.get_by_role("button", name="Remove")).to_be_visible()
        await page.get_by_role("button", name="Stop").click()
        await expect(first.get_by_role("button", name="Try again")).to_be_hidden()


async def test_a_failure_goes_back_into_the_field_with_its_media(page: Page, serve: OpenPage, tmp_path: Path) -> None:
    (tmp_path / "plain.png").write_bytes(encoded(plain(300, 200)))
    async with serve(FakeEngine(script=lambda *_: [RuntimeError("lost")])) as world:
        await open_ready(page, world)
        await page.locator("#files").set_input_files(tmp_path / "plain.png")
        await expect(page.locator(".chip[data-state=ready]")).to_have_count(1)
        await ask(page, "Which color?")
        await page.get_by_role("button", name="Edit and ask again").click()
        await expect(page.get_by_label("Question", exact=True)).to_have_value("Which color?")
        await expect(page.locator(".chip")).to_have_count(1)
        await expect(page.locator(".question")).to_have_count(0)


async def test_a_question_can_be_edited_and_taken_back(page: Page, serve: OpenPage) -> None:
    async with serve(FakeEngine(script=numbered())) as world:
        await open_ready(page, world)
        for number, text in enumerate(("First?", "Second?"), start=1):
            await ask(page, text)
            await expect(page.locator(".answer .prose").last).to_have_text(f"Answer {number}.")
        await page.get_by_role("button", name="Edit and ask again").first.click()
        field = page.get_by_label("Question", exact=True)
        await expect(field).to_have_value("First?")
        await expect(page.locator(".turns > li")).to_have_count(0)
        await page.locator("#toast").get_by_role("button", name="Undo").click()
        await expect(page.locator(".answer .prose")).to_have_text(["Answer 1.", "Answer 2."])
        await expect(field).to_have_value("")
        await page.get_by_role("button", name="Edit and ask again").nth(1).click()
        body = await sent_by(page, lambda: ask(page, "Other?"))
        assert texts(body) == [("user", "First?"), ("assistant", "Answer 1."), ("user", "Other?")]


async def test_an_answer_can_be_asked_for_again(page: Page, serve: OpenPage) -> None:
    async with serve(FakeEngine(script=numbered())) as world:
        await open_ready(page, world)
        await ask(page, "First?")
        await expect(page.locator(".answer .prose")).to_have_text("Answer 1.")
        body = await sent_by(page, lambda: page.get_by_role("button", name="Again", exact=True).click())
        assert texts(body) == [("user", "First?")]
        await expect(page.locator(".answer .prose")).to_have_text("Answer 2.")
        await page.locator("#toast").get_by_role("button", name="Undo").click()
        await expect(page.locator(".answer .prose")).to_have_text("Answer 1.")


async def test_a_stopped_answer_goes_on(page: Page, serve: OpenPage) -> None:
    engine = FakeEngine(script=endless)
    async with serve(engine) as world:
        await open_ready(page, world)
        await ask(page, "Go.")
        await expect(page.locator(".answer .prose")).to_contain_text("word word")
        await page.keyboard.press("Escape")
        await expect(page.locator(".answer")).to_contain_text("Stopped.")
        begun = await page.locator(".answer .prose").inner_text()
        engine.script = lambda *_: list(say("and the end."))
        body = await sent_by(page, lambda: page.get_by_role("button", name="Continue").click())
        assert body["continue_final_message"] and body["messages"][-1]["content"].strip() == begun.strip()
        await expect(page.locator(".answer .prose")).to_contain_text("word and the end.")
        assert (await page.locator(".answer .prose").inner_text()).startswith(begun)
        await expect(page.locator(".answer")).to_have_count(1)


async def test_an_upload_that_the_server_has_lost_is_sent_again_without_a_word(
    page: Page, serve: OpenPage, tmp_path: Path
) -> None:
    (tmp_path / "plain.png").write_bytes(encoded(plain(300, 200)))
    async with serve() as world:
        await open_ready(page, world)
        await page.locator("#files").set_input_files(tmp_path / "plain.png")
        await expect(page.locator(".seen canvas")).to_be_visible()
        await ask(page, "Which color?")
        await expect(page.locator(".measures dl")).to_have_count(1)
        await forget_all(page, world)
        await ask(page, "And now?")
        await expect(page.locator(".measures dl")).to_have_count(2)
        await expect(page.get_by_role("alert")).to_have_count(0)
        assert [len(prompt.media) for prompt in world.engine.prompts] == [1, 1]


async def test_past_conversations_are_found_named_deleted_and_brought_back(page: Page, serve: OpenPage) -> None:
    async with serve(FakeEngine(script=numbered())) as world:
        await open_ready(page, world)
        await ask(page, "About apples?")
        await expect(page.locator(".measures dl")).to_be_visible()
        await page.get_by_role("button", name="New conversation").click()
        await expect(page.locator(".turns > li")).to_have_count(0)
        await ask(page, "About pears?")
        await expect(page.locator(".measures dl")).to_be_visible()
        assert "About pears?" in await page.title()
        await page.get_by_role("button", name="Conversations").click()
        entries = page.locator("#history-list li")
        await expect(entries).to_have_count(2)
        await page.get_by_label("Search conversations").fill("answer 1")  # of the answers, too
        await expect(entries).to_have_count(1)
        await page.get_by_role("button", name="Rename About apples?").click()
        await page.get_by_label("Title").fill("Fruit")
        await page.keyboard.press("Enter")
        await page.get_by_label("Search conversations").fill("")
        await expect(entries.locator("b")).to_have_text(["About pears?", "Fruit"])
        await page.get_by_role("button", name="Delete Fruit").click()
        await expect(entries).to_have_count(1)
        await page.get_by_role("button", name="Undo").click()
        await expect(entries).to_have_count(2)
        await entries.filter(has_text="Fruit").locator(".open").click()
        await expect(page.locator(".question p")).to_have_text("About apples?")
        await expect(page.locator(".answer .prose")).to_have_text("Answer 1.")


async def test_a_conversation_goes_through_a_file(page: Page, serve: OpenPage, tmp_path: Path) -> None:
    async with serve(FakeEngine(script=numbered())) as world:
        await open_ready(page, world)
        await ask(page, "About apples?")
        await expect(page.locator(".measures dl")).to_be_visible()
        await page.get_by_role("button", name="Conversations").click()
        async with page.expect_download() as download:
            await page.get_by_role("button", name="Save About apples? as a file").click()
        await (await download.value).save_as(tmp_path / "saved.json")
        (tmp_path / "other.json").write_text('{"format": "tessera-conversation/1", "turns": [{"role": "assistant"}]}')
        for name in ("other.json", "saved.json"):
            async with page.expect_file_chooser() as chooser:
                await page.get_by_role("button", name="Open a file").click()
            await (await chooser.value).set_files(tmp_path / name)
            if name == "other.json":
                await expect(page.locator("#toast")).to_contain_text("not a conversation")
        await expect(page.locator("#history")).to_be_hidden()
        await expect(page.locator(".answer .prose")).to_have_text("Answer 1.")
        await page.get_by_role("button", name="Conversations").click()
        await expect(page.locator("#history-list li")).to_have_count(2)


async def test_the_last_question_comes_back_with_an_arrow(page: Page, serve: OpenPage) -> None:
    async with serve() as world:
        await open_ready(page, world)
        await ask(page, "Hi there.")
        await expect(page.locator(".measures dl")).to_be_visible()
        await page.get_by_label("Question", exact=True).press("ArrowUp")
        await expect(page.get_by_label("Question", exact=True)).to_have_value("Hi there.")


async def forget_all(page: Page, world: ServerFixture) -> None:
    # The page sends a lost file again whenever it asks something; it has asked for all previews by now.
    await expect(page.locator("#sees-what")).to_have_text("Of the conversation so far")
    for file in (await world.client.get("/v1/files")).json()["data"]:
        (await world.client.delete(f"/v1/files/{file['id']}")).raise_for_status()


async def test_all_turns_of_a_conversation_carry_one_session_key(page: Page, serve: OpenPage) -> None:
    async with serve() as world:
        await open_ready(page, world)
        keys = []
        for text in ("Hi.", "And then?"):
            async with page.expect_request("**/v1/chat/completions") as request:
                await ask(page, text)
            keys.append((await request.value).headers["x-session-id"])
            await expect(page.locator(".answer .prose").last).to_have_text("Hello, world!")
        assert keys[0] == keys[1] and len(keys[0]) == 16
    async with serve() as world:
        await open_ready(page, world)
        async with page.expect_request("**/v1/chat/completions") as request:
            await ask(page, "Something else.")
        assert (await request.value).headers["x-session-id"] != keys[0]
