"""What people try a model for: examples, comparisons, adapters, forms of answers, tools, parts of videos, links."""

import json
from pathlib import Path

from PIL import Image
from playwright.async_api import BrowserContext, Page, expect

from tests.browser.conftest import SCREENSHOTS, OpenPage, ask, open_ready, sent_by
from tests.support.fakes import MODEL, FakeEngine, say
from tests.support.images import encoded, photo, plain, real_video

SCHEMA = {"type": "object", "properties": {"color": {"type": "string"}}, "required": ["color"]}
TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
BOX = ("<|object_ref_start|>", "it", "<|object_ref_end|>", "<|box_start|>", "(100,100),(500,500)", "<|box_end|>")


async def test_four_cards_ask_on_a_click(page: Page, serve: OpenPage) -> None:
    async with serve() as world:
        await open_ready(page, world)
        cards = page.locator(".card")
        await expect(cards).to_have_count(4)
        await expect(cards.locator("img, video")).to_have_count(4)
        for place in await page.locator(".card-view").all():  # nothing of them is cut off
            assert await place.evaluate("place => place.firstElementChild.offsetHeight <= place.clientHeight")
        await page.get_by_label("Question", exact=True).fill("My own")
        for number, question in enumerate(
            ("What is in this picture?", "Find the red circle.", "What does it say?", "What happens in the video?")
        ):
            body = await sent_by(page, cards.nth(number).click)
            media, text = body["messages"][-1]["content"]
            assert (media["type"], text["text"]) == ("file", question)
            await expect(page.locator(".answer .prose")).to_have_text("Hello, world!")
            await expect(page.get_by_label("Question", exact=True)).to_have_value("My own")
            await page.get_by_role("button", name="New conversation").click()
            await page.get_by_label("Question", exact=True).fill("My own")
        grids = [prompt.media[0].grid for prompt in world.engine.prompts]
        assert [grid[0] for grid in grids] == [1, 1, 1, 4]  # four seconds, two frames each


async def test_the_empty_page_says_what_the_model_can_do(page: Page, serve: OpenPage) -> None:
    async with serve(description="A toy: shapes only.") as world:
        await open_ready(page, world)
        await expect(page.locator("#welcome")).to_contain_text("A toy: shapes only.")
        await expect(page.locator("#about-model")).to_be_visible()
        await ask(page, "Hi.")
        await expect(page.locator("#about-model")).to_be_hidden()


async def test_two_answers_stand_side_by_side_with_their_tokens(page: Page, serve: OpenPage, tmp_path: Path) -> None:
    (tmp_path / "rocket.png").write_bytes(encoded(photo()))
    async with serve(FakeEngine(max_model_len=8192)) as world:
        await open_ready(page, world)
        await page.locator("#files").set_input_files(tmp_path / "rocket.png")
        await expect(page.locator(".seen canvas")).to_be_visible()
        await ask(page, "What is it?")
        await page.get_by_role("button", name="Compare").click()
        dialog = page.locator("#compare")
        await dialog.get_by_label("max_pixels", exact=True).fill("100352")
        await page.keyboard.press("Enter")
        versions = page.locator(".answer .version")
        await expect(versions.locator("[data-fact=prompt] dd")).to_have_count(2)
        shown = [
            int(text.replace(",", "")) for text in await versions.locator("[data-fact=prompt] dd").all_inner_texts()
        ]
        assert shown == [len(prompt.token_ids) for prompt in world.engine.prompts] and shown[1] < shown[0]
        assert await versions.locator(".difference code").all_inner_texts() == [
            "max_pixels not set",
            "max_pixels 100,352",
        ]
        await expect(versions.nth(1).get_by_role("button", name="Keep this one")).to_be_in_viewport()
        await page.screenshot(path=SCREENSHOTS / "comparison.png")
        await versions.nth(1).get_by_role("button", name="Keep this one").click()
        await expect(page.locator(".answer .version")).to_have_count(1)
        await expect(page.locator("[data-fact=prompt] dd")).to_have_text(f"{shown[1]:,}")


async def test_adapters_can_be_chosen(page: Page, serve: OpenPage) -> None:
    async with serve(adapters=("pirate", "poet")) as world:
        await open_ready(page, world)
        await page.locator("#model-select").select_option("poet")
        body = await sent_by(page, lambda: ask(page, "Hi."))
        assert body["model"] == "poet"
        await expect(page.locator(".answer .prose")).to_have_text("Hello, world!")
        assert world.engine.prompts[0].adapter == "poet"
        await page.reload()
        await expect(page.locator("#model-select")).to_have_value("poet")
        await page.get_by_role("button", name="Compare").click()
        await page.locator("#compare-model").select_option(MODEL)
        await page.get_by_role("button", name="Ask and compare").click()
        await expect(page.locator(".difference code")).to_have_text(["poet", MODEL])


async def test_an_answer_can_be_held_to_a_form_and_is_shown_as_a_table(page: Page, serve: OpenPage) -> None:
    answer = '{"color": "red", "sizes": [1, 2]}'
    async with serve(FakeEngine(script=lambda *_: list(say(answer)))) as world:
        await open_ready(page, world)
        await page.get_by_text("Settings", exact=True).click()
        await page.get_by_label("Form of the answer").select_option("schema")
        await page.get_by_label("Schema, lines or expression").fill("{nonsense")
        await ask(page, "Hi.")
        await expect(page.locator(".question")).to_have_count(0)  # the field says what is wrong
        await page.get_by_label("Schema, lines or expression").fill(json.dumps(SCHEMA))
        await page.get_by_label("Further parameters").fill('{"logprobs": false}')
        await expect(page.locator("#settings-changed")).to_have_text("3 set")
        body = await sent_by(page, lambda: ask(page, "Hi."))
        assert body["response_format"]["json_schema"]["schema"] == SCHEMA and body["logprobs"] is False
        await expect(page.locator(".json tr")).to_have_text(["colorred", "sizes1, 2"])
        assert world.engine.limits[-1].grammar is not None
        for form, written, sent in (
            ("choice", "red\\ngreen", {"choice": ["red", "green"]}),
            ("regex", "[a-z]+", {"regex": "[a-z]+"}),
        ):
            await page.get_by_label("Form of the answer").select_option(form)
            await page.get_by_label("Schema, lines or expression").fill(written.replace("\\n", "\n"))
            body = await sent_by(page, lambda: ask(page, "Hi."))
            assert body["structured_outputs"] == sent
            await expect(page.locator(".turns")).not_to_have_attribute("data-running", "")
        await page.get_by_role("button", name="Back to the defaults").click()
        await expect(page.locator("#settings-changed")).to_have_text("")
        body = await sent_by(page, lambda: ask(page, "Hi."))
        assert "structured_outputs" not in body and "logprobs" not in body


async def test_calls_are_cards_and_results_can_be_typed_in(page: Page, serve: OpenPage) -> None:
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
    engine = FakeEngine(script=lambda *_: list(say(call)))
    async with serve(engine) as world:
        await open_ready(page, world)
        await page.get_by_text("Settings", exact=True).click()
        await page.get_by_label("Tools (JSON list)").fill(json.dumps([TOOL]))
        await ask(page, "How is the weather in Paris?")
        card = page.locator(".call")
        await expect(card.locator("h3")).to_have_text("get_weather")
        await expect(card.locator("tr")).to_have_text(["cityParis"])
        await expect(page.locator("#cost")).to_have_text("Send the results of the functions first")
        engine.script = lambda *_: list(say("It is sunny."))
        await page.get_by_label("What get_weather gives back").fill("sunny")
        body = await sent_by(page, lambda: page.get_by_role("button", name="Send the results").click())
        _, said, result = body["messages"]
        (called,) = said["tool_calls"]
        assert json.loads(called["function"]["arguments"]) == {"city": "Paris"}
        assert result == {"role": "tool", "tool_call_id": called["id"], "content": "sunny"}
        await expect(page.locator(".answer .prose").last).to_have_text("It is sunny.")


async def test_a_part_of_a_video_is_asked_about(page: Page, serve: OpenPage) -> None:
    async with serve() as world:
        await open_ready(page, world)
        await page.locator("#files").set_input_files(real_video())
        await expect(page.locator(".strip")).to_have_attribute("aria-busy", "false")
        await page.get_by_label("From second").fill("3")
        await page.get_by_label("To second").fill("5")
        await page.keyboard.press("Tab")
        await expect(page.locator(".slice")).to_have_count(2)
        body = await sent_by(page, lambda: ask(page, "What happens?"))
        file = body["messages"][0]["content"][0]["file"]
        assert (file["video_start"], file["video_end"]) == (3, 5)
        await expect(page.locator(".question .media")).to_contain_text("3 – 5 s")


async def test_a_link_is_offered_to_be_loaded(page: Page, serve: OpenPage) -> None:
    async with serve() as world:
        await open_ready(page, world)
        await page.get_by_label("Question", exact=True).fill("What is in https://example.org/cat.jpg ?")
        async with page.expect_request(lambda asked: "image_url" in (asked.post_data or "")) as request:
            await page.get_by_role("button", name="Load the picture or video at example.org").click()
        await expect(page.get_by_label("Question", exact=True)).to_have_value("What is in ?")
        await expect(page.locator(".chip b")).to_have_text("cat.jpg")
        part = json.loads((await request.value).post_data or "")["messages"][0]["content"][0]
        assert part == {"type": "image_url", "image_url": {"url": "https://example.org/cat.jpg"}}


async def test_formulas_are_drawn_and_code_is_colored_and_copied(page: Page, serve: OpenPage) -> None:
    text = (
        "A root $\\frac{a}{b}$, \\(x^2\\), $5 and $10, a lone \\(.\n\n\\[\\sum_i i\\]\n\n"
        "```python\nfor x in 'ab':  # twice\n    print(x)\n```\n\n`$not$ a formula`"
    )
    async with serve(FakeEngine(script=lambda *_: list(say(text)))) as world:
        await open_ready(page, world)
        await ask(page, "Hi.")
        prose = page.locator(".answer .prose")
        await expect(prose.locator("math")).to_have_count(3)
        await expect(prose.locator("mfrac")).to_have_count(1)
        await expect(prose.locator("p").first).to_contain_text("$5 and $10, a lone \\(.")
        await expect(prose.locator("p code")).to_have_text("$not$ a formula")
        assert await prose.locator("pre [data-code=word]").all_inner_texts() == ["for", "in"]
        await expect(prose.locator("pre [data-code=comment]")).to_have_text("# twice")
        await prose.get_by_role("button", name="Copy").click()
        assert await page.evaluate("navigator.clipboard.readText()") == "for x in 'ab':  # twice\n    print(x)\n"


async def test_a_picture_is_saved_with_its_boxes(page: Page, serve: OpenPage, tmp_path: Path) -> None:
    (tmp_path / "plain.png").write_bytes(encoded(plain(300, 200)))
    async with serve(FakeEngine(script=lambda *_: list(say(*BOX)))) as world:
        await open_ready(page, world)
        await page.locator("#files").set_input_files(tmp_path / "plain.png")
        await expect(page.locator(".seen canvas")).to_be_visible()
        await ask(page, "Find it.")
        async with page.expect_download() as download:
            await page.get_by_role("button", name="Save with boxes").click()
        saved = await download.value
        assert saved.suggested_filename == "plain-boxes.png"
        await saved.save_as(tmp_path / "saved.png")
        picture = Image.open(tmp_path / "saved.png").convert("RGB")
        assert picture.size == (300, 200)
        assert picture.getpixel((90, 20)) == (214, 0, 110)  # the upper edge of the box: a tenth of 200
        assert picture.getpixel((250, 150)) == (0, 128, 128)  # elsewhere, as it was


async def test_media_of_the_conversation_open_large_and_fit_the_window(
    page: Page, serve: OpenPage, tmp_path: Path
) -> None:
    (tmp_path / "tall.png").write_bytes(encoded(plain(300, 1500)))
    async with serve() as world:
        await open_ready(page, world)
        await page.locator("#files").set_input_files([tmp_path / "tall.png", real_video()])
        await expect(page.locator(".chip[data-state=ready]")).to_have_count(2)
        await ask(page, "What is it?")
        await page.locator(".question video").evaluate("video => video.dataset.same = 'yes'")
        await expect(page.locator(".measures dl")).to_be_visible()
        assert await page.locator(".question video").get_attribute("data-same") == "yes"  # not drawn anew
        video = await page.locator(".question video").bounding_box()
        assert video is not None and video["width"] >= 256
        await page.get_by_role("button", name="Enlarge tall.png").first.click()
        shown = await page.locator("#zoom-content img").bounding_box()
        window = page.viewport_size
        assert shown is not None and window is not None
        assert shown["y"] >= 0 and shown["y"] + shown["height"] <= window["height"]
        await page.keyboard.press("Escape")
        await page.get_by_role("button", name="Play").click()
        await expect(page.locator("#zoom-content video")).to_have_js_property("controls", True)


async def test_the_panel_moves_the_conversation_on_a_tablet(page: Page, serve: OpenPage) -> None:
    await page.set_viewport_size({"width": 820, "height": 1180})
    async with serve() as world:
        await open_ready(page, world)
        await page.get_by_role("button", name="Details").click()
        panel, composer = await page.locator("#panel").bounding_box(), await page.locator("#composer").bounding_box()
        assert panel is not None and composer is not None
        assert composer["x"] + composer["width"] <= panel["x"]
    await page.set_viewport_size({"width": 1280, "height": 800})


async def test_the_page_speaks_chinese(context: BrowserContext, serve: OpenPage) -> None:
    page = await context.new_page()
    await page.add_init_script("Object.defineProperty(navigator, 'languages', { get: () => ['zh-CN', 'en'] });")
    async with serve() as world:
        await open_ready(page, world)
        assert await page.locator("html").get_attribute("lang") == "zh"
        await expect(page.locator("#welcome-title")).to_have_text("给它看点什么。")
        await expect(page.locator("#cost")).to_have_text("请输入问题")
        await page.locator("#question").fill("你好")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name="查看代码")).to_be_visible()
        await expect(page.get_by_text("重新回答")).to_be_visible()
    await page.close()
