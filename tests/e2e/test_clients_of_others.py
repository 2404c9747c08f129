"""The npm `openai` package and LangChain against a whole server with the bundled model."""

import json
from pathlib import Path
from typing import Any

import pytest

from model_executor.checkpoint.config import BUNDLED_MODEL
from tests.support.images import made_clip
from tests.support.programs import PROGRAMS, ROOT, Done, install_javascript, require_python, run
from tests.support.serving import RunningServer

pytestmark = pytest.mark.engine

PICTURE = ROOT / "docs" / "circle.png"
COLORS = ("red", "green")


def told(done: Done) -> Any:
    assert done.code == 0, done.err
    return json.loads(done.out)


async def test_npm_openai_gets_every_kind_of_answer(
    bundled_server: RunningServer, tmp_path: Path, outer_environment: dict[str, str]
) -> None:
    folder = install_javascript(tmp_path, outer_environment)
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(made_clip(90))
    answers = told(await run("node", "answers.mjs", str(PICTURE), str(clip), url=bundled_server.url, folder=folder))
    assert "red circle" in answers["whole"]
    assert answers["whole"] == answers["streamed"] == answers["response"] == answers["responseStreamed"]
    assert answers["clip"] and answers["deleted"] is True
    for finish_reason, name, arguments in answers["calls"]:
        assert (finish_reason, name) == ("tool_calls", "paint")
        assert list(arguments) == ["color"] and arguments["color"] in COLORS
    assert answers["after"] in ("stop", "length")
    assert list(answers["parsed"]) == ["color"] and answers["parsed"]["color"] in COLORS


async def test_langchain_sees_a_picture_and_calls_a_tool(bundled_server: RunningServer, tmp_path: Path) -> None:
    program = str(PROGRAMS / "langchain_chat.py")
    command = (require_python(), program, str(PICTURE))
    answers = told(await run(*command, url=bundled_server.url, folder=tmp_path, MODEL=BUNDLED_MODEL))
    assert "red circle" in answers["whole"] and answers["whole"] == answers["streamed"]
    name, arguments = answers["call"]
    assert name == "paint" and arguments["color"] in COLORS
    assert answers["after"] in ("stop", "length")
