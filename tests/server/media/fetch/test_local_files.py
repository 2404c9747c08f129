"""`file:` URLs: plain files below the folder, and not a step beyond."""

import os
from pathlib import Path
from urllib.parse import quote

import pytest

from server.core.settings import MediaSettings
from server.media.errors import MediaError
from server.media.fetch.fetcher import Fetcher
from server.media.types import LocalFile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files in it, secrets beside it, and links of every kind between them."""
    folder = tmp_path / "media"
    (folder / "deep" / "er").mkdir(parents=True)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "media-too").mkdir()
    for file in ("secrets/key", "media-too/key"):
        (tmp_path / file).write_bytes(b"secret")
    (folder / "a.png").write_bytes(b"hello")
    (folder / "deep" / "er" / "ü ?#%.png").write_bytes(b"deep")
    (folder / "link").symlink_to(tmp_path / "secrets" / "key")
    (folder / "inner-link").symlink_to(folder / "a.png")
    (folder / "folder-link").symlink_to(tmp_path / "secrets")
    (folder / "deep" / "up").symlink_to("..")
    os.mkfifo(folder / "pipe")
    return folder


async def fetched(url: str | LocalFile, folder: Path | None, max_bytes: int = 1000) -> bytes:
    fetcher = Fetcher(MediaSettings(allowed_local_path=folder))
    chunks: list[bytes] = []
    try:
        await fetcher.fetch(url, chunks.append, max_bytes=max_bytes, limit="media.max_image_bytes")
    finally:
        fetcher.close()
    return b"".join(chunks)


async def test_files_below_the_folder_are_read(folder: Path) -> None:
    for host in ("", "localhost"):
        assert await fetched(f"file://{host}{folder}/a.png", folder) == b"hello"
    assert await fetched(f"FILE://{folder}/deep/er/{quote('ü ?#%.png')}", folder) == b"deep"
    assert await fetched(f"file:{folder}/a.png", folder) == b"hello"


async def test_nothing_is_read_where_no_folder_is_set(folder: Path) -> None:
    with pytest.raises(MediaError, match=r"media\.allowed_local_path is not set"):
        await fetched(f"file://{folder}/a.png", None)


@pytest.mark.parametrize(
    "path",
    [
        "/../secrets/key", "/deep/../../secrets/key", "/%2e%2e/secrets/key", "/..%2fsecrets%2fkey",
        "/%2E%2E%2Fsecrets/key",
        "-too/key", "/link", "/inner-link", "/folder-link/key", "/deep/up/a.png", "/deep/up/../../secrets/key",
        "", "/", "/.", "/deep", "/deep/", "/deep//er", "/./a.png", "/a.png/", "/a.png/x", "/missing", "/pipe",
        "/a.png%00", "/a.png?x", "/a.png#x", "/a.png?", "/" + "x" * 300, "/" + "x/" * 3000 + "x",
    ],
)  # fmt: skip
async def test_refuses_whatever_is_no_plain_file_below_the_folder(folder: Path, path: str) -> None:
    with pytest.raises(MediaError) as caught:
        await fetched(f"file://{folder}{path}", folder)
    assert caught.value.code == "invalid_media_url"
    assert str(folder) not in caught.value.message and "secret" not in caught.value.message


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "file://evil.test/etc/passwd", "file:etc/passwd", "file:", "file:///dev/zero"]
)
async def test_refuses_what_lies_elsewhere(folder: Path, url: str) -> None:
    with pytest.raises(MediaError):
        await fetched(url, folder)


async def test_another_host_is_refused(folder: Path) -> None:
    with pytest.raises(MediaError):
        await fetched(f"file://evil.test{folder}/a.png", folder)


async def test_size_is_limited(folder: Path) -> None:
    with pytest.raises(MediaError, match=r"larger than 4 bytes \(media\.max_image_bytes\)"):
        await fetched(f"file://{folder}/a.png", folder, max_bytes=4)


async def test_an_uploaded_file_is_read_whole(folder: Path) -> None:
    data = os.urandom(3_000_000)
    (folder / "big").write_bytes(data)
    assert await fetched(LocalFile(str(folder / "big")), None, max_bytes=3_000_000) == data


async def test_an_uploaded_file_that_was_deleted_is_not_found(folder: Path) -> None:
    with pytest.raises(MediaError) as caught:
        await fetched(LocalFile(str(folder / "gone")), None)
    assert caught.value.code == "media_file_not_found" and str(folder) not in caught.value.message
