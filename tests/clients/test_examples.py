"""The examples in `clients/examples`, as people run them, against a live server.

Node.js and the Python packages of others may be missing: `REQUIRE_NODE=1` and `REQUIRE_EXAMPLES=1` turn the skips into
failures.
"""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import ROOT, Done
from tests.fakes import FakeEngine, say
from tests.server.conftest import OpenWorld, World
from tests.server.files.test_store import png

EXAMPLES = ROOT / "clients" / "examples"
PYTHON = ROOT / ".venv-examples" / "bin" / "python"
NPM_TIMEOUT_S = 300
BOX = "<|object_ref_start|>it<|object_ref_end|><|box_start|>(500,250),(750,1000)<|box_end|>"


def missing(what: str, requirement: str) -> None:
    if os.environ.get(requirement) == "1":
        pytest.fail(f"{requirement}=1, and {what}")
    pytest.skip(what)


@pytest.fixture(scope="module")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JavaScript examples with their packages, in a folder of their own."""
    if not shutil.which("node") or not shutil.which("npm"):
        missing("there is no Node.js with npm", "REQUIRE_NODE")
    folder = tmp_path_factory.mktemp("examples") / "javascript"
    shutil.copytree(EXAMPLES / "javascript", folder, ignore=shutil.ignore_patterns("node_modules", "build"))
    command = ["npm", "ci", "--no-fund", "--no-audit"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=NPM_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        missing("npm does not get its packages in time", "REQUIRE_NODE")
    if done.returncode:
        missing(f"npm cannot get its packages: {done.stderr[-300:]}", "REQUIRE_NODE")
    return folder


async def run(*command: str, url: str, folder: Path) -> Done:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "unused"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 200)
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


async def test_javascript_streams_an_answer(live: World, javascript: Path, photo_path: Path, tmp_path: Path) -> None:
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
async def test_python_examples_of_other_packages(live: World, photo_path: Path, script: str) -> None:
    if not PYTHON.exists():
        missing(f"{PYTHON.parent.parent.name} is not there: make examples", "REQUIRE_EXAMPLES")
    done = await run(str(PYTHON), str(EXAMPLES / script), "What?", str(photo_path), url=live.url, folder=ROOT)
    assert (done.code, done.out) == (0, "Hello, world!\n"), done.err
    assert [part.modality for part in live.media.parts] == ["image"]


def test_the_lock_of_packages_names_no_other_place_than_npm() -> None:
    packages = json.loads((EXAMPLES / "javascript" / "package-lock.json").read_text("utf-8"))["packages"]
    assert len(packages) > 2
    for name, package in packages.items():
        assert package.get("resolved", "https://registry.npmjs.org/").startswith("https://registry.npmjs.org/"), name
        assert not name or package["integrity"].startswith("sha512-")
