"""Large files go to `/v1/files` and are named by id; small ones stand in the message itself."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai

from tessera_client.parts import MediaError, Part, Source, image, media_item, text

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

UPLOAD_ABOVE_BYTES = 4 << 20
"""Files up to this size are sent within the message. A body may have 64 MiB, and base64 adds a third."""
LIFETIME_S = 86_400
"""Time after which the server forgets an upload."""

OnUpload = Callable[[Path, int, int], None]
"""Told, while a file is sent: its path, the bytes sent so far, and all of them."""


def content(
    *sources: "str | Part | Source",
    client: openai.OpenAI | None = None,
    upload_above_bytes: int = UPLOAD_ABOVE_BYTES,
    on_upload: OnUpload | None = None,
) -> list[Part]:
    """The content of a message from whatever it is made of, in order.

    Args:
        sources: a `str` is text; a `Path` or `bytes` is an image or video; pixels (Pillow, numpy [H, W, 3]) are a
            image; a dictionary is a part that is ready (`image`, `video`, `upload`).
        client: takes files of more than `upload_above_bytes` as uploads; None: everything is sent within the message.
        upload_above_bytes: see `client`.
        on_upload: see `OnUpload`.

    Raises:
        MediaError: a source is not there, or no image or video.
        openai.OpenAIError: an upload failed.
    """
    parts: list[Part] = []
    for source in sources:
        if isinstance(source, dict):
            parts.append(source)
        elif isinstance(source, str):
            parts.append(text(source))
        elif isinstance(source, Path) and client is not None and _size_bytes(source) > upload_above_bytes:
            parts.append(upload(client, source, on_upload=on_upload))
        elif isinstance(source, Path | bytes):
            parts.append(media_item(source))
        else:
            parts.append(image(source))
    return parts


def upload(
    client: openai.OpenAI,
    path: Path,
    *,
    lifetime_s: int = LIFETIME_S,
    on_upload: OnUpload | None = None,
    **limits: Any,
) -> Part:
    """Send an image or video to `/v1/files`; the part that names it, for any number of requests.

    Args:
        client: of the server that will be asked.
        path: the file.
        lifetime_s: the server forgets it then, at least 3600.
        on_upload: see `OnUpload`.
        limits: `fps`, `max_pixels`, …, as the server takes them.

    Raises:
        MediaError: the file cannot be read.
        openai.OpenAIError: the server does not take it.
    """
    try:
        file = _ToldFile(path.expanduser(), on_upload)
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror}") from error
    with file:
        made = client.files.create(
            file=(path.name, file), purpose="vision", expires_after={"anchor": "created_at", "seconds": lifetime_s}
        )
    return {"type": "file", "file": {"file_id": made.id}, **limits}


class _ToldFile(io.FileIO):
    """A file that tells how far it has been read."""

    def __init__(self, path: Path, on_upload: OnUpload | None) -> None:
        super().__init__(path)
        self._path = path
        self._on_upload = on_upload
        self._size_bytes = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size)
        self._tell()
        return data

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        count = super().readinto(buffer)
        self._tell()
        return count

    def _tell(self) -> None:
        if self._on_upload is not None:
            self._on_upload(self._path, self.tell(), self._size_bytes)


def _size_bytes(path: Path) -> int:
    try:
        return path.expanduser().stat().st_size
    except OSError as error:
        raise MediaError(f"{path} cannot be read: {error.strerror}") from error
