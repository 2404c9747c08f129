"""Paths, bytes, Pillow images, numpy arrays and URLs as content parts of a message.

What it does not: upload (`uploads.py`), or decode anything; files are sent as they are.
"""

import base64
import io
import mimetypes
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL import Image

Part: TypeAlias = dict[str, Any]
"""One content part of a message, as JSON."""
Source: TypeAlias = "str | Path | bytes | Image.Image | npt.NDArray[np.uint8]"
"""One image or video: URL, path, encoded bytes, Pillow image, or uint8 [H, W, 3] (RGB), [H, W] (gray), [H, W, 4]."""
Frames: TypeAlias = "Sequence[Source] | npt.NDArray[np.uint8]"
"""Frames of a video in order: a list of images, or uint8 [F, H, W, 3]."""

FRAME_QUALITY = 95
"""JPEG quality of frames that come as pixels; as PNG, a video would not fit into a request."""

_URLS = ("http://", "https://", "data:", "file:")
_KIND = {"image_url": "image/png", "video_url": "video/mp4"}


class MediaError(ValueError):
    """Something that cannot be a content part; the text says what and why."""


def text(value: str) -> Part:
    """A piece of text."""
    return {"type": "text", "text": value}


def image(source: Source, **limits: Any) -> Part:
    """An image.

    Args:
        source: see `Source`; arrays and Pillow images are sent as PNG, without loss.
        limits: `detail`, `min_pixels`, `max_pixels`, …, as the server takes them.

    Raises:
        MediaError: it is not there, or no image.
    """
    return {"type": "image_url", "image_url": {"url": url_of(source, "image_url"), **limits}}


def video(source: "str | Path | bytes | Frames", **limits: Any) -> Part:
    """A video, from a file or from frames.

    Args:
        source: URL, path or encoded bytes; or `Frames`, for which `fps` is the rate they were taken at.
        limits: `fps`, `max_frames`, `video_start`, …, as the server takes them.

    Raises:
        MediaError: it is not there, or has no frames.
    """
    if isinstance(source, str | Path | bytes):
        return {"type": "video_url", "video_url": {"url": url_of(source, "video_url"), **limits}}
    if not len(source):
        raise MediaError("a video needs at least one frame")
    return {"type": "video", "video": [url_of(frame, "frame") for frame in source], **limits}


def is_url(source: str) -> bool:
    """Whether a text is a URL that a server may take media from."""
    return source.lower().startswith(_URLS)


def part_type(path: Path) -> str:
    """`image_url` or `video_url`, by the file's name; `file` where the name does not tell, and the server looks."""
    kind = (mimetypes.guess_type(path.name)[0] or "").partition("/")[0]
    return {"image": "image_url", "video": "video_url"}.get(kind, "file")


def _is_other(path: Path) -> bool:
    """Whether a file's name says that it is a text, a sound or a document."""
    mime = mimetypes.guess_type(path.name)[0] or ""
    return mime.startswith(("text/", "audio/")) or mime in ("application/pdf", "application/json", "application/zip")


def media_item(source: str | Path | bytes, **limits: Any) -> Part:
    """An image or a video, whichever it is.

    Args:
        source: URL, path or encoded bytes; what the name does not tell is left to the server (a part `file`).
        limits: as `image` and `video`.

    Raises:
        MediaError: it is not there.
    """
    if isinstance(source, str) and is_url(source):
        kind = "image_url" if source.lower().startswith("data:image/") else part_type(Path(source.partition("?")[0]))
        if kind == "file" and not source.lower().startswith("data:"):
            raise MediaError(f"{source[:100]} does not tell whether it is an image or a video: use image() or video()")
    else:
        if not isinstance(source, bytes) and _is_other(Path(source)):
            raise MediaError(f"{source} is neither an image nor a video")
        kind = "file" if isinstance(source, bytes) else part_type(Path(source))
    match kind:
        case "image_url":
            return image(source, **limits)
        case "video_url":
            return video(source, **limits)
    return {"type": "file", "file": {"file_data": url_of(source, "file")}, **limits}


def url_of(source: Source, kind: str) -> str:
    """The URL that stands for a source in a part: itself, or a `data:` URL of its content.

    Args:
        source: see `Source`.
        kind: `image_url`, `video_url`, `file` or `frame`; decides the MIME type where nothing else does.

    Raises:
        MediaError: see the class.
    """
    if isinstance(source, str) and is_url(source):
        return source
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        mime = mimetypes.guess_type(path.name)[0] or _KIND.get(kind, "application/octet-stream")
        return _data_url(_read(path), mime)
    if isinstance(source, bytes):
        return _data_url(source, _KIND.get(kind, "application/octet-stream"))
    return _data_url(*_encoded(source, lossless=kind != "frame"))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror}") from error


def _encoded(source: "Image.Image | npt.NDArray[np.uint8]", *, lossless: bool) -> tuple[bytes, str]:
    from PIL import Image  # only whoever has pixels needs it

    shown = source if isinstance(source, Image.Image) else _from_array(source)
    buffer = io.BytesIO()
    if lossless:
        shown.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue(), "image/png"
    shown.convert("RGB").save(buffer, "JPEG", quality=FRAME_QUALITY, subsampling=0)
    return buffer.getvalue(), "image/jpeg"


def _from_array(array: "npt.NDArray[np.uint8]") -> "Image.Image":
    from PIL import Image

    if getattr(array, "dtype", None) != "uint8" or array.ndim not in (2, 3):
        raise MediaError("an array must be uint8 [H, W], [H, W, 3] or [H, W, 4]")
    try:
        return Image.fromarray(array)
    except (TypeError, ValueError) as error:
        raise MediaError(f"an array of shape {list(array.shape)} is no image") from error


def _data_url(content: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"
