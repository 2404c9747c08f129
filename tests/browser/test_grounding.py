"""Boxes of answers, drawn on the picture in its original pixels."""

from pathlib import Path
from typing import Any

from playwright.async_api import Locator, Page, expect

from model_executor.families.qwen2_5_vl import QWEN2_5_VL
from tests.browser.conftest import OpenPage, open_ready
from tests.support.fakes import FakeEngine, say
from tests.support.images import encoded, plain

TWO_BOXES = (
    "Here: ",
    "<|object_ref_start|>",
    "the red ring",
    "<|object_ref_end|>",
    "<|box_start|>",
    "(100,200),(500,700)",
    "<|box_end|>",
    "<|box_start|>",
    "(0,0),(1000,1000)",
    "<|box_end|>",
)
WIDTH, HEIGHT = 600, 400


async def rectangle(box: Locator) -> list[float]:
    """Left, top, right and bottom of an SVG rectangle, in the units of its picture."""
    found: list[float] = await box.evaluate(
        """rect => { const [x, y, width, height] = ["x", "y", "width", "height"].map(name => rect[name].baseVal.value);
                     return [x, y, x + width, y + height]; }"""
    )
    return found


async def ask(page: Page, files: Any) -> None:
    await page.locator("#files").set_input_files(files)
    await expect(page.locator(".chip[data-state=ready]")).to_have_count(len(files))
    await expect(page.locator(".seen")).to_have_count(len(files))
    await page.get_by_label("Question", exact=True).fill("Find the red ring.")
    await page.keyboard.press("Enter")
    await expect(page.locator(".measures")).to_be_visible()


async def test_boxes_are_drawn_in_the_pixels_of_the_picture_sent(page: Page, serve: OpenPage, tmp_path: Path) -> None:
    (tmp_path / "wide.png").write_bytes(encoded(plain(WIDTH, HEIGHT)))
    async with serve(FakeEngine(script=lambda *_: list(say(*TWO_BOXES)))) as world:
        await open_ready(page, world)
        await ask(page, [tmp_path / "wide.png"])
        figure = page.locator(".boxes")
        assert await figure.locator("svg").get_attribute("viewBox") == f"0 0 {WIDTH} {HEIGHT}"
        boxes = figure.locator("rect.box")
        assert await rectangle(boxes.nth(0)) == [60, 80, 300, 280]  # a tenth of 600, a fifth of 400, …
        assert await rectangle(boxes.nth(1)) == [0, 0, WIDTH, HEIGHT]
        assert await figure.locator("li code").all_inner_texts() == [
            "60, 80 – 300, 280 px",
            f"0, 0 – {WIDTH}, {HEIGHT} px",
        ]
        assert await figure.locator("li b").all_inner_texts() == ["the red ring"] * 2
        picture, drawn = await figure.locator("img").bounding_box(), await figure.locator("svg").bounding_box()
        assert picture == drawn  # so that a box lies where it belongs
        assert (await page.locator(".answer .prose").inner_text()).strip() == "Here: the red ring"


async def test_with_several_pictures_the_person_says_which_is_meant(
    page: Page, serve: OpenPage, tmp_path: Path
) -> None:
    for name, size in {"a.png": (WIDTH, HEIGHT), "b.png": (300, 300)}.items():
        (tmp_path / name).write_bytes(encoded(plain(*size)))
    async with serve(FakeEngine(script=lambda *_: list(say(*TWO_BOXES)))) as world:
        await open_ready(page, world)
        await ask(page, [tmp_path / "a.png", tmp_path / "b.png"])
        figure = page.locator(".boxes")
        assert await figure.locator("svg").get_attribute("viewBox") == "0 0 300 300"
        await figure.get_by_label("On").select_option("a.png")
        assert await figure.locator("svg").get_attribute("viewBox") == f"0 0 {WIDTH} {HEIGHT}"
        assert await rectangle(figure.locator("rect.box").nth(0)) == [60, 80, 300, 280]


async def test_a_picture_on_its_side_is_upright_for_boxes_too(page: Page, serve: OpenPage, tmp_path: Path) -> None:
    picture = plain(WIDTH, HEIGHT)
    exif = picture.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    (tmp_path / "turned.jpg").write_bytes(encoded(picture, "JPEG", exif=exif))
    async with serve(FakeEngine(script=lambda *_: list(say(*TWO_BOXES)))) as world:
        await open_ready(page, world)
        await ask(page, [tmp_path / "turned.jpg"])
        figure = page.locator(".boxes")
        assert await figure.locator("svg").get_attribute("viewBox") == f"0 0 {HEIGHT} {WIDTH}"
        shown = await figure.locator("img").bounding_box()
        assert shown is not None and shown["height"] > shown["width"]


async def test_half_a_box_is_not_shown_and_numbers_without_marks_are_no_box(page: Page, serve: OpenPage) -> None:
    texts = ("From (1,2),(3,4) ", "<|box_start|>", "(10,20),(30")
    async with serve(FakeEngine(script=lambda *_: list(say(*texts, finish="length")))) as world:
        await open_ready(page, world)
        await page.get_by_label("Question", exact=True).fill("Find it.")
        await page.keyboard.press("Enter")
        await expect(page.locator("[data-fact=cut]")).to_be_visible()
        assert (await page.locator(".answer .prose").inner_text()).strip() == "From (1,2),(3,4)"
        await expect(page.locator(".boxes")).to_have_count(0)


async def test_boxes_in_pixels_as_the_model_sees_them_are_drawn_where_they_belong(
    page: Page, serve: OpenPage, tmp_path: Path
) -> None:
    (tmp_path / "wide.png").write_bytes(encoded(plain(WIDTH, HEIGHT)))
    seen = (588, 392)  # multiples of 28
    json = f'```json\n[{{"bbox_2d": [0, 98, 294, {seen[1]}], "label": "the red ring"}}]\n```'
    async with serve(FakeEngine(script=lambda *_: list(say(json))), family=QWEN2_5_VL) as world:
        await open_ready(page, world)
        await ask(page, [tmp_path / "wide.png"])
        figure = page.locator(".boxes")
        assert await rectangle(figure.locator("rect.box").first) == [0, HEIGHT / 4, WIDTH / 2, HEIGHT]
        assert await figure.locator("li b").all_inner_texts() == ["the red ring"]
