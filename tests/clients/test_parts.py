"""Content parts from all that people hold pictures and clips in, read back by the server's own readers."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from server.prompt.messages import UserMessage
from tessera_client import MediaError, content, image, text, video
from tests.support.images import encoded, made_clip, photo, real_video


def bytes_of(url: str) -> bytes:
    return base64.b64decode(url.partition(",")[2])


def accepted(*parts: dict[str, Any]) -> None:
    """The server's own model of a message takes these parts."""
    UserMessage.model_validate({"role": "user", "content": list(parts)})


def test_a_file_is_sent_as_it_is(photo_path: Path) -> None:
    for source in (photo_path, str(photo_path)):
        part = image(source, detail="low")
        accepted(part)
        assert part["image_url"]["url"].startswith("data:image/png;base64,")
        assert bytes_of(part["image_url"]["url"]) == photo_path.read_bytes()
        assert part["image_url"]["detail"] == "low"


def test_pixels_are_sent_without_loss() -> None:
    shown = photo().resize((64, 48))
    for source in (shown, np.asarray(shown)):
        part = image(source)
        accepted(part)
        back = Image.open(io.BytesIO(bytes_of(part["image_url"]["url"])))
        assert np.array_equal(np.asarray(back), np.asarray(shown))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4)])
def test_gray_colored_and_transparent_arrays_are_pictures(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    back = Image.open(io.BytesIO(bytes_of(image(array)["image_url"]["url"])))
    assert np.array_equal(np.asarray(back), array)


@pytest.mark.parametrize(
    "array",
    [np.zeros((5, 7, 3)), np.zeros((5,), np.uint8), np.zeros((5, 7, 2, 1), np.uint8), np.zeros((5, 7, 9), np.uint8)],
)
def test_arrays_that_are_no_pictures_are_refused(array: Any) -> None:
    with pytest.raises(MediaError, match="array"):
        image(array)


def test_frames_are_a_clip_taken_at_their_rate() -> None:
    frames = np.stack([np.full((30, 40, 3), level, np.uint8) for level in (10, 120, 250)])
    part = video(frames, fps=4)
    accepted(part)
    assert part["fps"] == 4 and len(part["video"]) == 3
    for url, level in zip(part["video"], (10, 120, 250), strict=True):
        back = np.asarray(Image.open(io.BytesIO(bytes_of(url))))
        assert back.shape == (30, 40, 3) and abs(back.astype(int) - level).max() <= 2
    assert len(video([Image.new("L", (8, 8))] * 2)["video"]) == 2


def test_a_clip_file_is_sent_as_it_is() -> None:
    part = video(real_video(), max_frames=8)
    accepted(part)
    assert part["video_url"]["url"].startswith("data:video/mp4;base64,") and part["video_url"]["max_frames"] == 8
    assert bytes_of(part["video_url"]["url"]) == real_video().read_bytes()


def test_urls_stay_urls() -> None:
    for part in (image("https://example.org/a"), video("https://example.org/a")):
        accepted(part)
        assert part[part["type"]]["url"] == "https://example.org/a"


def test_the_content_of_a_message_in_the_order_it_was_given(photo_path: Path) -> None:
    parts = content(
        "What is", photo_path, "and", Image.new("RGB", (8, 8)), video("https://e.org/c"), made_clip(4), real_video()
    )
    accepted(*parts)
    kinds = ["text", "image_url", "text", "image_url", "video_url", "file", "video_url"]
    assert [part["type"] for part in parts] == kinds


def test_what_a_name_does_not_tell_the_server_tells(tmp_path: Path) -> None:
    path = tmp_path / "unnamed"
    path.write_bytes(encoded(Image.new("RGB", (8, 8))))
    (part,) = content(path)
    accepted(part)
    assert bytes_of(part["file"]["file_data"]) == path.read_bytes()


def test_what_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    for read in (image, video, lambda path: content(path)):
        with pytest.raises(MediaError, match=r"missing\.png.*No such file"):
            read(tmp_path / "missing.png")
    with pytest.raises(MediaError, match="at least one frame"):
        video([])
    assert text("a") == {"type": "text", "text": "a"}
