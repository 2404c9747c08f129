"""Other ways to write a medium's address, from the request to the pixels: each gives what the plain way gives."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from server.chat.reader import read_request
from server.chat.request import ChatCompletionRequest
from server.media.preprocessor import MediaPreprocessor
from server.media.types import MediaPart, PreparedMedia
from server.prompt.conversation import Conversation
from tests.support.images import data_url, encoded
from tests.support.media_service import running
from tests.support.site import open_site

PICTURE = encoded(Image.fromarray(np.arange(56 * 84 * 3, dtype=np.uint8).reshape(56, 84, 3)), "PNG")
URL = data_url(PICTURE)


def frame(level: int) -> str:
    written = io.BytesIO()
    Image.new("RGB", (56, 56), (level, 0, 255 - level)).save(written, "JPEG")
    return base64.b64encode(written.getvalue()).decode()


FRAMES = [frame(level) for level in (0, 80, 160, 240)]


def read(part: dict[str, Any]) -> MediaPart:
    body = {"model": "m", "messages": [{"role": "user", "content": [part]}]}
    prompt = read_request(ChatCompletionRequest.model_validate(body), "").prompt
    assert isinstance(prompt, Conversation)
    (medium,) = prompt.media
    return medium


async def seen(service: MediaPreprocessor, part: dict[str, Any]) -> tuple[PreparedMedia, bytes]:
    [prepared] = await service.prepare([read(part)], "t")
    pixels = Path(prepared.path).read_bytes()
    prepared.release()
    return prepared, pixels


async def test_spellings_of_an_image(tmp_path: Path) -> None:
    async with running(tmp_path, allow_private_networks=True) as service, open_site() as site:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: {len(PICTURE)}\r\n\r\n".encode()
        site.answers["/a.png"] = head + PICTURE
        plain, pixels = await seen(service, {"type": "image_url", "image_url": {"url": URL}})
        for part in (
            {"type": "image_url", "image_url": URL},
            {"type": "image_url", "image_url": {"url": f"\n {URL}\t"}},
            {"type": "image_url", "image_url": f" {site.url('/a.png')}\r\n"},
            {"type": "image", "image": f" {URL}"},
            {"type": "file", "file": {"file_data": f" {URL}"}},
        ):
            other, same = await seen(service, part)
            assert (other.grid, same) == (plain.grid, pixels), part


@pytest.mark.parametrize("head", ["data:video/jpeg;base64,", "DATA:video/JPEG;base64,", " \ndata:video/jpeg;base64,"])
async def test_frames_in_one_url_are_a_list_of_frames(tmp_path: Path, head: str) -> None:
    listed = {"type": "video", "video": [f"data:image/jpeg;base64,{one}" for one in FRAMES]}
    async with running(tmp_path) as service:
        plain, pixels = await seen(service, listed)
        assert plain.modality == "video" and plain.grid.t == 2
        for part in (
            {"type": "video_url", "video_url": {"url": head + ",".join(FRAMES)}},
            {"type": "video_url", "video_url": head + ",".join(FRAMES)},
            {"type": "video", "video": head + ",".join(FRAMES)},
        ):
            other, same = await seen(service, part)
            assert (other.grid, other.frame_times_s, same) == (plain.grid, plain.frame_times_s, pixels)
