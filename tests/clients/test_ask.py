"""`tessera ask` as a process against a live server."""

import asyncio
import json
import os
import pty
import re
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import tessera
from tests.support.fakes import FakeEngine, FakeMedia, say
from tests.support.images import png, real_video
from tests.support.world import OpenWorld, ServerFixture

pytestmark = pytest.mark.slow

BOX = "<|object_ref_start|>it<|object_ref_end|><|box_start|>(500,250),(999,750)<|box_end|>"


async def test_streams_the_answer_about_a_picture_and_a_clip(live: ServerFixture, photo_path: Path) -> None:
    done = await tessera(
        "ask", "What is this?", "--url", live.url, str(photo_path), str(real_video()), "--max-tokens", "9"
    )
    assert (done.out, done.err, done.code) == ("Hello, world!\n", "", 0)
    assert [part.modality for part in live.media.parts] == ["image", "video"]
    assert live.engine.limits[0].max_tokens == 9 and live.engine.limits[0].temperature == 0


async def test_takes_server_and_key_from_the_openai_variables(open_world: OpenWorld) -> None:
    async with open_world(live=True, api_key="secret") as world:
        url = f"{world.url}/v1"
        assert (await tessera("ask", "Hi", OPENAI_BASE_URL=url, OPENAI_API_KEY="secret")).out == "Hello, world!\n"
        assert (await tessera("ask", "Hi", "--api-key", "secret", OPENAI_BASE_URL=url)).code == 0
        refused = await tessera("ask", "Hi", OPENAI_BASE_URL=url)
    assert refused.code == 1 and "asks for a key" in refused.err and "Traceback" not in refused.err


async def test_the_whole_answer_as_json(live: ServerFixture) -> None:
    done = await tessera("ask", "Hi", "--json", "--system", "Be brief.", "--seed", "3", "--url", live.url)
    answer = json.loads(done.out)
    assert answer["choices"][0]["message"]["content"] == "Hello, world!" and answer["usage"]["completion_tokens"] == 3
    assert live.engine.limits[0].seed == 3


@pytest.mark.parametrize("in_file", [True, False])
async def test_a_schema_reaches_the_engine(live: ServerFixture, tmp_path: Path, in_file: bool) -> None:
    schema = json.dumps({"type": "object", "properties": {"color": {"enum": ["red", "blue"]}}, "required": ["color"]})
    path = tmp_path / "schema.json"
    path.write_text(schema)
    done = await tessera("ask", "Color?", "--schema", str(path) if in_file else schema, "--url", live.url)
    assert done.code == 0
    grammar = live.engine.limits[0].grammar
    assert grammar is not None and "color" in grammar.value


async def test_reads_the_question_or_the_picture_from_stdin(live: ServerFixture, photo_path: Path) -> None:
    assert (await tessera("ask", "--url", live.url, stdin=b"What is this?\n")).out == "Hello, world!\n"
    assert (await tessera("ask", "-", str(photo_path), "--url", live.url, stdin=b"And this?")).code == 0
    assert (await tessera("ask", "What?", "-", "--url", live.url, stdin=photo_path.read_bytes())).code == 0
    assert [part.modality for part in live.media.parts] == ["image", "image"]


async def test_uploads_a_large_file(live: ServerFixture, tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(png(5_000_000))
    assert (await tessera("ask", "What?", str(path), "--url", live.url)).code == 0
    assert (await live.client.get("/v1/files")).json()["data"][0]["filename"] == "large.png"


async def test_boxes_come_in_the_pictures_own_pixels(open_world: OpenWorld, photo_path: Path) -> None:
    async with open_world(live=True, engine=FakeEngine(script=lambda *_: say(BOX))) as world:
        done = await tessera("ask", "Locate it.", str(photo_path), "--boxes", "--url", world.url)
        assert not world.engine.limits[0].skip_special_tokens
    answer, box = done.out.splitlines()
    assert answer == "it"  # tokens and corners in thousandths are not for people
    # The fake's pictures are 640 x 480.
    assert json.loads(box) == {"label": "it", "left": 320.0, "top": 120.0, "right": 639.4, "bottom": 360.0}


async def test_a_conversation_tells_boxes_in_pixels(open_world: OpenWorld, photo_path: Path) -> None:
    pieces = ("Here: <|object_ref", "_start|>it<|object_ref_end|><|box_start|>(500,", "250),(999,750)<|box_end|> a < b")
    async with open_world(live=True, engine=FakeEngine(script=lambda *_: say(*pieces))) as world:
        lines = f"/add {photo_path}\nWhere?\nAnd now?\n"
        done = await tessera("ask", "Hi.", "--chat", "--url", world.url, stdin=lines.encode())
    assert "Here: it a < b\n" in done.out and "<|" not in done.out
    assert "it: 320, 120 to 639, 360 px" in done.err


async def test_a_text_is_neither_an_image_nor_a_video(live: ServerFixture) -> None:
    done = await tessera("ask", "What?", "README.md", "--url", live.url)
    assert done.code == 2 and "README.md is neither an image nor a video" in done.err


async def test_a_wrong_key_is_told_apart_from_none(open_world: OpenWorld) -> None:
    async with open_world(live=True, api_key="secret") as world:
        wrong = await tessera("ask", "Hi.", "--url", world.url, "--api-key", "wrong")
    assert wrong.code == 1 and "does not accept this key" in wrong.err


async def test_a_conversation_remembers_and_forgets(live: ServerFixture, photo_path: Path) -> None:
    lines = f"Two.\n/add {photo_path} {photo_path.parent}/missing.png\n/add {photo_path}\nThree.\n/fly\n/new\nFour.\n"
    done = await tessera("ask", "One.", "--chat", "--system", "Be.", "--url", live.url, stdin=lines.encode())
    assert done.code == 0 and done.out.count("Hello, world!") == 4
    assert "missing.png" in done.err and "/fly" in done.err
    lengths = [len(prompt.token_ids) for prompt in live.engine.prompts]
    assert lengths[0] < lengths[1] < lengths[2] > lengths[3]
    assert [len(prompt.media) for prompt in live.engine.prompts] == [0, 0, 1, 0]


async def test_an_answer_that_was_cut_off_says_so(open_world: OpenWorld) -> None:
    async with open_world(live=True, engine=FakeEngine(script=lambda *_: say("One", finish="length"))) as world:
        done = await tessera("ask", "Hi", "--url", world.url)
    assert done.out == "One\n" and "cut off" in done.err


async def test_a_terminal_shows_progress_and_no_control_characters(open_world: OpenWorld, photo_path: Path) -> None:
    media = FakeMedia(delay_s=0.6)
    media.frames.num_done, media.frames.num_total = 1, 2
    engine = FakeEngine(script=lambda *_: say("a\x1b]0;title\x07b\tc"))
    async with open_world(live=True, media=media, engine=engine, keep_alive_s=0.1) as world:
        controlling, terminal = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "server", "ask", "What?", str(photo_path), "--url", world.url,
            stdin=terminal, stdout=terminal, stderr=terminal,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        )  # fmt: skip
        os.close(terminal)
        shown = b""
        while piece := await asyncio.to_thread(_read, controlling):
            shown += piece
        assert await asyncio.wait_for(process.wait(), 60) == 0
        os.close(controlling)
    assert b"preparing media 50 %" in shown
    assert re.search(rb"a\]0;titleb\tc\r\n", shown)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("ask", "What?", "missing.jpg"), "missing.jpg"),
        (("ask", "README.md"), "the question comes first"),
        (("ask", "-", "-"), "once"),
        (("ask", ""), "empty"),
        (("ask", "What?", "--schema", "missing.json"), "missing.json"),
        (("ask", "What?", "--schema", "{"), "no JSON"),
        (("ask", "What?", "--json", "--boxes"), "--boxes"),
        (("ask", "What?", "--shcema", "{}"), "is --schema meant?"),
        (("ask", "What?", "--prot"), "there is no flag --prot"),
        (("preview",), "nothing to preview"),
        (("bench", "--fly"), "--fly"),
    ],
)
async def test_a_wrong_command_line_is_told_in_a_sentence(arguments: tuple[str, ...], word: str) -> None:
    done = await tessera(*arguments)
    assert done.code == 2 and word in done.err and "Traceback" not in done.err
    assert len(done.err.splitlines()) <= 2


async def test_says_where_no_server_is() -> None:
    for arguments in (("ask", "Hi"), ("preview", "--question", "Hi")):
        done = await tessera(*arguments, "--url", "http://127.0.0.1:9")
        assert done.code == 1 and "no server answers at http://127.0.0.1:9" in done.err


async def test_a_refusal_is_told_in_a_sentence(live: ServerFixture) -> None:
    done = await tessera("ask", "Hi", "--temperature", "9", "--url", live.url)
    assert done.code == 1 and "temperature" in done.err and "Traceback" not in done.err
