"""The examples in `clients/examples`, as people run them, against a live server."""

import json
from pathlib import Path

import pytest

from tests.support.fakes import FakeEngine, say
from tests.support.images import png
from tests.support.programs import EXAMPLES, ROOT, require_python, run
from tests.support.world import OpenWorld, ServerFixture

pytestmark = pytest.mark.slow

BOX = "<|object_ref_start|>it<|object_ref_end|><|box_start|>(500,250),(750,1000)<|box_end|>"


async def test_javascript_streams_an_answer(
    live: ServerFixture, javascript: Path, photo_path: Path, tmp_path: Path
) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(png(5_000_000))
    done = await run("node", "ask.mjs", "What?", str(photo_path), str(large), url=live.url, folder=javascript)
    assert (done.code, done.out) == (0, "Hello, world!"), done.err
    assert "+ 3 tokens" in done.err
    assert [part.modality for part in live.media.parts] == ["image", "image"]
    assert len((await live.client.get("/v1/files")).json()["data"]) == 1


async def test_typescript_maps_boxes_to_pixels(open_world: OpenWorld, javascript: Path, photo_path: Path) -> None:
    async with open_world(live=True, engine=FakeEngine(script=lambda *_: say(BOX))) as world:
        command = ("npm", "run", "--silent", "locate", "--", "Locate it.", str(photo_path))
        done = await run(*command, url=world.url, folder=javascript)
    assert done.code == 0, done.out + done.err
    told = json.loads(done.out)
    assert told["size"] == {"width": 640, "height": 480} and told["text"] == BOX  # what the fake says of pictures
    assert told["boxes"] == [{"left": 320, "top": 120, "right": 480, "bottom": 480}]


@pytest.mark.parametrize("script", ["langchain_ask.py", "llama_index_ask.py"])
async def test_python_examples_of_other_packages(live: ServerFixture, photo_path: Path, script: str) -> None:
    done = await run(require_python(), str(EXAMPLES / script), "What?", str(photo_path), url=live.url, folder=ROOT)
    assert (done.code, done.out) == (0, "Hello, world!\n"), done.err
    assert [part.modality for part in live.media.parts] == ["image"]


def test_the_lock_of_packages_names_no_other_place_than_npm() -> None:
    packages = json.loads((EXAMPLES / "javascript" / "package-lock.json").read_text("utf-8"))["packages"]
    assert len(packages) > 2
    for name, package in packages.items():
        assert package.get("resolved", "https://registry.npmjs.org/").startswith("https://registry.npmjs.org/"), name
        assert not name or package["integrity"].startswith("sha512-")
