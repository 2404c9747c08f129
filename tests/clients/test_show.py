"""`tessera preview` as a process against a live server."""

import json
from pathlib import Path

from tests.clients.conftest import tessera
from tests.support.images import real_video
from tests.support.world import ServerFixture


async def test_shows_sizes_grids_times_and_tokens(live: ServerFixture, photo_path: Path) -> None:
    done = await tessera("preview", str(photo_path), str(real_video()), "--question", "What?", "--url", live.url)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    picture, clip = (next(line.split() for line in lines if name in line) for name in ("photo.png", "bikes.mp4"))
    assert picture[1:] == ["640x480", "56x56", "1x4x4", "4"]
    assert clip[1:5] == ["640x480", "28x28", "3x2x2", "3"]
    assert "6 at 0.00 0.50 1.00 1.50 … 2.50 s" in done.out and "a note" in done.out
    assert not live.engine.prompts


async def test_as_json_and_with_the_prompt(live: ServerFixture, photo_path: Path) -> None:
    done = await tessera("preview", str(photo_path), "--json", "--system", "Be.", "--url", live.url)
    shown = json.loads(done.out)
    assert shown["prompt_tokens"] == sum(shown["prompt_tokens_details"].values())
    assert "Be." in shown["prompt"]
    done = await tessera("preview", "--question", "[bold]?", "--prompt", "--url", live.url)
    assert "<|im_start|>user\n[bold]?<|im_end|>" in done.out
