"""What is refused, how fast, and that the server goes on: every body is an OpenAI error naming the part."""

import io
import struct
import time
import wave
import zlib
from typing import Any

import httpx
import pytest

from server.core.error_codes import CODES
from tests.support.images import clip_part, data_url, encoded, made_clip, photo, picture_part, plain
from tests.support.serving import RunningServer

pytestmark = pytest.mark.engine


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    )


def silence() -> bytes:
    """A WAV file: media, but none that can be seen."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8000)
        writer.writeframes(bytes(1600))
    return buffer.getvalue()


def unknown_codec() -> bytes:
    """A clip whose codec tag nobody knows."""
    return made_clip(4, codec="libx264").replace(b"avc1", b"zz9!")


def image(content: bytes, mime: str = "image/png") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(content, mime)}}


def image_at(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


JPEG = encoded(photo(), "JPEG", quality=90)
CASES: dict[str, dict[str, Any]] = {
    "truncated picture": image(JPEG[: len(JPEG) // 2], "image/jpeg"),
    "empty picture": image(b""),
    "corrupt picture": image(JPEG[:200] + bytes(5000), "image/jpeg"),
    "text as picture": image(b"just words, " * 100),
    "50 000 x 50 000 PNG": image(png_header(50_000, 50_000)),
    "ratio 201": picture_part(plain(201 * 8, 8)),
    "wrong base64": image_at("data:image/png;base64,@@@@"),
    "no base64": image_at("data:image/png,hello"),
    "private address": image_at("http://127.0.0.1:1/x.png"),
    "private address in disguise": image_at("http://0x7f.1/x.png"),
    "mapped address": image_at("http://[::ffff:169.254.169.254]/latest"),
    "file scheme": image_at("file:///etc/passwd"),
    "no url": image_at("hello"),
    "empty clip": clip_part(b""),
    "truncated clip": clip_part(made_clip(60)[:300]),
    "text as clip": clip_part(b"just words, " * 100),
    "audio only": clip_part(silence()),
    "unknown codec": clip_part(unknown_codec()),
    "private clip": {"type": "video_url", "video_url": {"url": "http://10.0.0.1/clip.mp4"}},
    "unknown part": {"type": "smell", "smell": "rose"},
}


def post(server: RunningServer, part: dict[str, Any], **extra: Any) -> httpx.Response:
    body = {"model": "tessera-test", "max_tokens": 2, **extra}
    body["messages"] = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}]
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("case", CASES)
def test_refuses_at_once_and_names_the_part(server: RunningServer, case: str, stream: bool) -> None:
    started = time.monotonic()
    response = post(server, CASES[case], stream=stream)
    took_s = time.monotonic() - started
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"].startswith("messages[0].content[1]")
    assert CODES[error["code"]][0] == 400
    assert not any(leak in error["message"] for leak in ("/dev/shm", "Traceback", "site-packages", "127.0.0.1"))
    assert took_s < 30  # a hang, not a benchmark: it takes milliseconds


def test_the_server_goes_on_after_all_refusals(server: RunningServer) -> None:
    for part in CASES.values():
        post(server, part)
    assert post(server, picture_part(plain(56, 56))).status_code == 200
    assert server.metrics()["tessera_requests_running"] == 0
