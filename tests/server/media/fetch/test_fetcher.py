"""Fetching against a real server on the loopback interface: the guard, the limits, the clock."""

import asyncio
import base64
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from model_executor.fair_queue import CLIENT
from server.core.errors import DeadlineError
from server.core.settings import MediaSettings
from server.media.errors import MediaError, MediaErrorCode
from server.media.fetch import fetcher as fetcher_module
from server.media.fetch.fetcher import Fetcher
from tests.support.site import Site, open_site
from tests.support.waiting import until

OPEN = MediaSettings(allow_private_networks=True, fetch_timeout_s=5)
GUARDED = MediaSettings(fetch_timeout_s=5)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with open_site() as opened:
        opened.answers["/ok"] = OK
        yield opened


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    fetcher = Fetcher(OPEN)
    yield fetcher
    fetcher.close()


@pytest.fixture
def guarded() -> Iterator[Fetcher]:
    fetcher = Fetcher(GUARDED)
    yield fetcher
    fetcher.close()


async def fetched(fetcher: Fetcher, url: str, max_bytes: int = 1000) -> bytes:
    chunks: list[bytes] = []
    await fetcher.fetch(url, chunks.append, max_bytes=max_bytes, limit="media.max_image_bytes")
    return b"".join(chunks)


async def rejected(fetcher: Fetcher, url: str, code: MediaErrorCode, max_bytes: int = 1000) -> str:
    with pytest.raises(MediaError) as caught:
        await fetched(fetcher, url, max_bytes)
    assert caught.value.code == code
    assert "127.0.0" not in caught.value.message
    return caught.value.message


def redirect(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1000, 786_432, 2_000_000])
async def test_data_url_is_decoded(fetcher: Fetcher, size: int) -> None:
    data = bytes(index * 7 % 256 for index in range(size))
    for scheme in ("data:image/png;base64,", "DATA:;Base64,", "data:video/mp4;codecs=avc1;base64,"):
        assert await fetched(fetcher, scheme + base64.b64encode(data).decode(), 2_000_000) == data


@pytest.mark.parametrize(
    "text", ["AAA", "A", "AA=A", "AAAA=", "====", "AA-_", "AA AA", "AAAA\n", "%41AAA", "AAé=", "QUI=QUI=", "\ud800AAA"]
)
async def test_wrong_base64_is_rejected(fetcher: Fetcher, text: str) -> None:
    assert "not valid base64" in await rejected(fetcher, "data:image/png;base64," + text, "invalid_base64_media")


async def test_padding_inside_a_long_data_url_is_rejected(fetcher: Fetcher) -> None:
    text = "QUI=" * (1 << 19)
    url = "data:image/png;base64," + text
    assert "not valid base64" in await rejected(fetcher, url, "invalid_base64_media", max_bytes=10**8)


@pytest.mark.parametrize("url", ["data:", "data:,hello", "data:text/plain,hello", "data:image/png;base64"])
async def test_data_url_without_base64_is_rejected(fetcher: Fetcher, url: str) -> None:
    assert "data:MEDIA-TYPE;base64,DATA" in await rejected(fetcher, url, "invalid_media_url")


async def test_data_url_over_the_limit_is_rejected_with_the_number(fetcher: Fetcher) -> None:
    url = "data:;base64," + base64.b64encode(bytes(1001)).decode()
    message = await rejected(fetcher, url, "media_file_too_large")
    assert message == "The file is larger than 1000 bytes (media.max_image_bytes)."
    assert len(await fetched(fetcher, "data:;base64," + base64.b64encode(bytes(1000)).decode())) == 1000


@pytest.mark.parametrize("url", ["ftp://x/y", "gopher://x", "/etc/passwd", "", "javascript:1"])
async def test_other_schemes_are_rejected(fetcher: Fetcher, url: str) -> None:
    message = await rejected(fetcher, url, "invalid_media_url")
    assert message == "Only data:, http:, https: and file: URLs are supported."


@pytest.mark.parametrize("url", ["http://", "http://\x00", "http://[::1", "http://u:p@host/", "http://0177.0.0.1/"])
async def test_malformed_urls_are_rejected(fetcher: Fetcher, url: str) -> None:
    await rejected(fetcher, url, "invalid_media_url")


async def test_a_port_that_does_not_exist_is_rejected(fetcher: Fetcher) -> None:
    await rejected(fetcher, "http://a:99999/", "failed_to_download_media")


async def test_http_is_fetched_where_private_networks_are_allowed(fetcher: Fetcher, site: Site) -> None:
    assert await fetched(fetcher, site.url("/ok")) == b"hello"
    assert f"host: 127.0.0.1:{site.port}".encode() in site.requests[0].lower()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.1", "127.1", "0",
        "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "169.254.169.254", "[fd00:ec2::254]", "10.0.0.1",
    ],
)  # fmt: skip
async def test_private_address_is_rejected_without_a_connection(guarded: Fetcher, site: Site, host: str) -> None:
    message = await rejected(guarded, site.url("/ok", host), "invalid_media_url")
    assert message == "The URL leads to an address that is not public (media.allow_private_networks is off)."
    assert site.requests == []


async def test_host_with_one_private_address_is_rejected(guarded: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, {"mixed.example": ["8.8.8.8", "10.0.0.1"]})
    assert "not public" in await rejected(guarded, "http://mixed.example/", "invalid_media_url")


def resolve(monkeypatch: pytest.MonkeyPatch, hosts: dict[str, list[str]]) -> list[str]:
    """Replace the name server; gives the list of names resolved for."""
    resolved: list[str] = []

    def getaddrinfo(host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        resolved.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in hosts[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return resolved


def only_first_loopback_is_public(address: str) -> bool:
    return address == "127.0.0.1"


async def test_connection_goes_to_the_checked_address(
    guarded: Fetcher, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = resolve(monkeypatch, {"media.example": ["127.0.0.1"]})
    monkeypatch.setattr(fetcher_module, "is_public", only_first_loopback_is_public)
    assert await fetched(guarded, site.url("/ok", "media.example")) == b"hello"
    assert resolved == ["media.example"]
    assert f"host: media.example:{site.port}".encode() in site.requests[0].lower()


async def test_next_address_is_tried_where_one_does_not_answer(
    fetcher: Fetcher, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, {"media.example": ["127.0.0.9", "127.0.0.1"]})
    assert await fetched(fetcher, site.url("/ok", "media.example")) == b"hello"


async def test_refuses_redirect_to_private_address(
    guarded: Fetcher, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetcher_module, "is_public", only_first_loopback_is_public)
    async with open_site("127.0.0.2") as inside:
        inside.answers["/ok"] = OK
        site.answers["/away"] = redirect(inside.url("/ok", "127.0.0.2"))
        assert "not public" in await rejected(guarded, site.url("/away"), "invalid_media_url")
        assert inside.requests == []
    assert len(site.requests) == 1


async def test_only_allowed_domains_are_asked_on_every_hop(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = resolve(monkeypatch, {"media.example": ["127.0.0.1"], "a.media.example.": ["127.0.0.1"]})
    site.answers["/inside"] = redirect(site.url("/ok", "A.media.example."))
    site.answers["/away"] = redirect(site.url("/ok", "evil.example"))
    fetcher = Fetcher(MediaSettings(allow_private_networks=True, allowed_domains="media.example"))
    assert await fetched(fetcher, site.url("/inside", "media.example")) == b"hello"
    assert resolved == ["media.example", "a.media.example."]
    for url in (
        site.url("/away", "media.example"),
        site.url("/ok", "evil.example"),
        site.url("/ok", "media.example.evil.example"),
        site.url("/ok", "127.0.0.1"),
        site.url("/ok", "2130706433"),
    ):
        assert "media.allowed_domains" in await rejected(fetcher, url, "invalid_media_url")
    assert resolved == ["media.example", "a.media.example.", "media.example"]
    fetcher.close()


async def test_denied_domains_are_not_asked_on_any_hop(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = resolve(monkeypatch, {"media.example": ["127.0.0.1"]})
    site.answers["/away"] = redirect(site.url("/ok", "x.evil.example"))
    fetcher = Fetcher(
        MediaSettings(allow_private_networks=True, allowed_domains="example", denied_domains="evil.example,bad.example")
    )
    assert await fetched(fetcher, site.url("/ok", "media.example")) == b"hello"
    for host, path in (("media.example", "/away"), ("evil.example", "/ok"), ("x.BAD.example.", "/ok")):
        assert "media.denied_domains" in await rejected(fetcher, site.url(path, host), "invalid_media_url")
    assert resolved == ["media.example", "media.example"]
    fetcher.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(fetcher: Fetcher, site: Site, status: int) -> None:
    site.answers["/a/b"] = redirect("../ok", status)
    assert await fetched(fetcher, site.url("/a/b")) == b"hello"


async def test_redirects_end_at_the_limit(fetcher: Fetcher, site: Site) -> None:
    for number in range(5):
        site.answers[f"/{number}"] = redirect(f"/{number + 1}")
    site.answers["/5"] = OK
    assert await fetched(fetcher, site.url("/2")) == b"hello"
    site.requests.clear()
    message = await rejected(fetcher, site.url("/1"), "failed_to_download_media")
    assert "more than 3 times (media.max_redirects)" in message
    assert len(site.requests) == 4


OTHER_SCHEMES = ["file:///etc/passwd", "data:;base64,QUJD", "ftp://x/"]


@pytest.mark.parametrize("location", [*OTHER_SCHEMES, "http://", "//[::1"])
async def test_refuses_redirect_to_elsewhere(fetcher: Fetcher, site: Site, location: str) -> None:
    site.answers["/away"] = redirect(location)
    code: MediaErrorCode = "invalid_media_url" if location in OTHER_SCHEMES else "failed_to_download_media"
    await rejected(fetcher, site.url("/away"), code)


async def test_redirect_to_nowhere_is_rejected(fetcher: Fetcher, site: Site) -> None:
    site.answers["/away"] = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"
    assert "without a location" in await rejected(fetcher, site.url("/away"), "failed_to_download_media")


async def test_cookies_are_not_carried_along(fetcher: Fetcher, site: Site) -> None:
    site.answers["/set"] = b"HTTP/1.1 302 Found\r\nSet-Cookie: a=b\r\nLocation: /ok\r\nContent-Length: 0\r\n\r\n"
    await fetched(fetcher, site.url("/set"))
    assert b"cookie" not in site.requests[1].lower()


@pytest.mark.parametrize("status", ["204 No Content", "206 Partial", "404 Not Found", "500 Oops"])
async def test_other_statuses_are_rejected(fetcher: Fetcher, site: Site, status: str) -> None:
    site.answers["/x"] = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
    assert f"status {status[:3]}" in await rejected(fetcher, site.url("/x"), "failed_to_download_media")


async def test_announced_size_over_the_limit_is_rejected_at_once(fetcher: Fetcher, site: Site) -> None:
    async def announce(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n")
        await asyncio.sleep(60)

    site.answers["/x"] = announce
    assert "larger than 1000 bytes" in await rejected(fetcher, site.url("/x"), "media_file_too_large")


async def test_stream_over_the_limit_is_cut_off(fetcher: Fetcher, site: Site) -> None:
    async def pour(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"64\r\n" + bytes(100) + b"\r\n")
            await writer.drain()

    site.answers["/x"] = pour
    assert "larger than 1000 bytes" in await rejected(fetcher, site.url("/x"), "media_file_too_large")


async def test_compressed_body_is_rejected(fetcher: Fetcher, site: Site) -> None:
    site.answers["/x"] = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"
    assert "compressed" in await rejected(fetcher, site.url("/x"), "failed_to_download_media")
    assert b"accept-encoding: identity" in site.requests[0].lower()


@pytest.mark.parametrize("where", ["before the header", "in the body"])
async def test_dripping_url_ends_at_its_deadline(site: Site, where: str) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        text = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"
        if where == "in the body":
            writer.write(text)
            text = bytes(900)
        for byte in text:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    site.answers["/x"] = drip
    fetcher = Fetcher(MediaSettings(allow_private_networks=True, fetch_timeout_s=0.4))
    started_s = time.perf_counter()
    with pytest.raises(DeadlineError, match=r"^Fetching the URL took longer than 0\.4 s \(media\.fetch_timeout_s\)\.$"):
        await fetched(fetcher, site.url("/x"))
    assert 0.3 < time.perf_counter() - started_s < 30
    fetcher.close()


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", OK[:-2]])
async def test_broken_answers_are_rejected(fetcher: Fetcher, site: Site, answer: bytes) -> None:
    site.answers["/x"] = answer
    assert "connection failed" in await rejected(fetcher, site.url("/x"), "failed_to_download_media")


async def test_nobody_listening_is_rejected(fetcher: Fetcher) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/"
        assert "no connection" in await rejected(fetcher, url, "failed_to_download_media")


async def test_unknown_host_is_rejected(fetcher: Fetcher) -> None:
    message = await rejected(fetcher, "http://no-such-host.invalid/", "failed_to_download_media")
    assert "cannot be resolved" in message


async def test_certificate_is_checked_against_the_name(
    fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=media.example", "-addext", "subjectAltName=DNS:media.example",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    names: list[str | None] = []
    tls.sni_callback = lambda _, name, __: names.append(name)
    resolve(monkeypatch, {"media.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]})
    async with open_site(tls=tls) as site:
        site.answers["/ok"] = OK
        url = f"https://media.example:{site.port}/ok"
        assert "no connection" in await rejected(fetcher, url, "failed_to_download_media")  # nobody vouches for it yet
        fetcher._tls.load_verify_locations(certificate)
        assert await fetched(fetcher, url) == b"hello"
        url = url.replace("media", "other")
        assert "no connection" in await rejected(fetcher, url, "failed_to_download_media")
    assert names == ["media.example", "media.example", "other.example"]


async def test_slow_names_of_one_client_do_not_stop_another(
    fetcher: Fetcher, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, release = socket.getaddrinfo, threading.Event()

    def getaddrinfo(host: str, *arguments: Any, **named: Any) -> Any:
        if host.startswith("slow"):
            release.wait(30)
        return answer("127.0.0.1" if host == "quick.test" else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    CLIENT.set("greedy")
    crowd = [asyncio.create_task(fetched(fetcher, f"http://slow{number}.test/")) for number in range(20)]
    await asyncio.sleep(0.1)
    for task in crowd[:10]:
        task.cancel()  # their threads go on, and keep their places
    CLIENT.set("other")
    async with asyncio.timeout(5):
        assert await fetched(fetcher, site.url("/ok").replace("127.0.0.1", "quick.test")) == b"hello"
    for task in crowd:
        task.cancel()
    await asyncio.wait(crowd)
    release.set()
    await until(lambda: not fetcher._names.num_taken)
