"""Fetches the bytes of images and videos from `data:`, `http(s):` and `file:` URLs; the server's only outbound network.

SSRF guard: a host must be in the allowed domains; it is resolved once, every address it has must be public, and the
connection goes to the address that was checked, with the host's name in the Host header and in TLS. Redirects are
followed by hand, so that each target passes the same checks. Size and time are limited from the first byte on.

Source: RFC 2397 (data URLs), RFC 4648 section 4 (base64), RFC 9110 section 15.4 (redirects).
"""

import asyncio
import binascii
import contextlib
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import httpx

from model_executor.fair_queue import FairQueue
from server.core.concurrency import run_to_completion
from server.core.domains import is_within, split_domains
from server.core.errors import DeadlineError
from server.core.settings import MediaSettings
from server.media.errors import MediaError
from server.media.fetch.local_files import open_uploaded, open_url
from server.media.fetch.public_address import is_public
from server.media.types import LocalFile

Sink = Callable[[bytes], None]
"""Receives the bytes as they arrive; an exception it raises ends the fetch."""

_DATA = "data:"
_FILE = "file:"
_READ_BYTES = 1 << 20
_BASE64 = ";base64"
_CHUNK_CHARS = 1 << 20
_DEFAULT_PORTS = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_RESOLVER_THREADS = 8
_MAX_FETCHES = 64
_MAX_WAITING = 512
# Encoded media do not compress, and a compressed answer could grow beyond its announced size.
_HEADERS = {"Accept": "image/*, video/*, */*;q=0.1", "Accept-Encoding": "identity", "User-Agent": "tessera"}


class Fetcher:
    """Brings the bytes behind media URLs.

    Args:
        settings: where URLs may lead, and how long that may take.
    """

    def __init__(self, settings: MediaSettings) -> None:
        """Nothing is fetched yet."""
        self._settings = settings
        # A slow name server must not occupy the threads that other work needs, nor one client those of all.
        self._resolver = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="resolve")
        self._names = FairQueue(_RESOLVER_THREADS, max_per_client=2, max_waiting=_MAX_WAITING)
        self._places = FairQueue(_MAX_FETCHES, max_per_client=_MAX_FETCHES // 2, max_waiting=_MAX_WAITING)
        self._allowed = split_domains(settings.allowed_domains)
        self._denied = split_domains(settings.denied_domains)
        path = settings.allowed_local_path
        self._allowed_local_path = None if path is None else path.expanduser().absolute()
        self._tls = httpx.create_ssl_context(trust_env=False)

    def close(self) -> None:
        """Give the threads back, without waiting for name servers."""
        self._resolver.shutdown(wait=False, cancel_futures=True)

    async def fetch(self, url: str | LocalFile, sink: Sink, *, max_bytes: int, limit: str) -> None:
        """Fetch the bytes behind a URL or of an uploaded file.

        Args:
            url: `data:…;base64,…`, `http://…`, `https://…` or `file:///…`, or the file.
            sink: receives the bytes.
            max_bytes: how many there may be.
            limit: the setting that `max_bytes` comes from, for the error.

        Raises:
            MediaError: the URL is malformed, not allowed or unreachable, or there is too much behind it.
            DeadlineError: it took longer than `media.fetch_timeout_s`.
        """
        too_large = MediaError("media_file_too_large", f"The file is larger than {max_bytes} bytes ({limit}).")
        if isinstance(url, LocalFile):
            with open_uploaded(url) as file:
                await _read_file(file, sink, max_bytes, too_large)
            return
        if url[: len(_FILE)].lower() == _FILE:
            with open_url(url, self._allowed_local_path) as file:
                await _read_file(file, sink, max_bytes, too_large)
            return
        if url[: len(_DATA)].lower() == _DATA:
            await _decode_data_url(url, sink, max_bytes, too_large)
            return
        try:
            async with self._places.place(), asyncio.timeout(self._settings.fetch_timeout_s):
                await self._fetch_http(url, sink, max_bytes, too_large)
        except TimeoutError as error:
            raise DeadlineError(
                f"Fetching the URL took longer than {self._settings.fetch_timeout_s:g} s (media.fetch_timeout_s)."
            ) from error
        except httpx.HTTPError as error:
            raise _download_error("the connection failed") from error

    async def _fetch_http(self, text: str, sink: Sink, max_bytes: int, too_large: MediaError) -> None:
        url = self._check_domain(_parse(text))
        for _ in range(self._settings.max_redirects + 1):
            async with contextlib.AsyncExitStack() as stack:
                response = await self._get(url, stack)
                if response.status_code not in _REDIRECTS:
                    await _read(response, sink, max_bytes, too_large)
                    return
                url = self._check_domain(_parse(_redirect_target(url, response)))
        raise _download_error(f"it redirects more than {self._settings.max_redirects} times (media.max_redirects)")

    def _check_domain(self, url: httpx.URL) -> httpx.URL:
        """The same URL, of an allowed domain."""
        host = url.raw_host.decode("ascii").lower().rstrip(".")
        if (self._allowed and not is_within(host, self._allowed)) or is_within(host, self._denied):
            setting = "media.denied_domains" if is_within(host, self._denied) else "media.allowed_domains"
            raise MediaError("invalid_media_url", f"This server does not fetch from the URL's domain ({setting}).")
        return url

    async def _get(self, url: httpx.URL, stack: contextlib.AsyncExitStack) -> httpx.Response:
        """Request the URL from the first address that answers; the response stays open until `stack` closes."""
        host = url.raw_host.decode("ascii")
        addresses = await self._resolve(host, url.port or _DEFAULT_PORTS[url.scheme])
        # A transport of its own: no cookie and no connection is shared between requests or hosts. No proxy either: it
        # would do the resolving.
        transport = await stack.enter_async_context(httpx.AsyncHTTPTransport(verify=self._tls, trust_env=False))
        timeout = httpx.Timeout(self._settings.fetch_timeout_s).as_dict()
        failure: httpx.ConnectError | None = None
        for address in addresses:
            request = httpx.Request(
                "GET",
                url.copy_with(host=address),
                headers={"Host": url.netloc.decode("ascii"), **_HEADERS},
                extensions={"sni_hostname": host, "timeout": timeout},
            )
            try:
                response = await transport.handle_async_request(request)
            except httpx.ConnectError as error:
                failure = error
                continue
            stack.push_async_callback(response.aclose)
            return response
        raise _download_error("no connection") from failure

    async def _resolve(self, host: str, port: int) -> list[str]:
        """The addresses of a host, all of them checked, best first."""
        await self._names.take()
        looking_up = asyncio.get_running_loop().run_in_executor(
            self._resolver, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        looking_up.add_done_callback(self._end_look_up)
        try:
            entries = await asyncio.shield(looking_up)  # the thread continues, and keeps its place until it ends
        except (OSError, UnicodeError) as error:
            raise _download_error("its host cannot be resolved") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
        if not self._settings.allow_private_networks and not all(map(is_public, addresses)):
            raise MediaError(
                "invalid_media_url",
                "The URL leads to an address that is not public (media.allow_private_networks is off).",
            )
        return addresses

    def _end_look_up(self, looking_up: "asyncio.Future[Any]") -> None:
        self._names.give_back()
        if not looking_up.cancelled():
            looking_up.exception()  # nobody may be left to hear of it


def _download_error(reason: str) -> MediaError:
    return MediaError("failed_to_download_media", f"The URL could not be fetched: {reason}.")


def _parse(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise MediaError("invalid_media_url", "The URL is malformed.") from error
    if url.scheme not in _DEFAULT_PORTS:
        raise MediaError("invalid_media_url", "Only data:, http:, https: and file: URLs are supported.")
    if not url.raw_host:
        raise MediaError("invalid_media_url", "The URL has no host.")
    if url.userinfo:
        raise MediaError("invalid_media_url", "URLs that contain a user name or password are not supported.")
    return url


def _redirect_target(url: httpx.URL, response: httpx.Response) -> str:
    location = response.headers.get("location")
    if not location:
        raise _download_error("it redirects without a location")
    try:
        return str(url.join(location))
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise _download_error("it redirects to a malformed URL") from error


async def _read(response: httpx.Response, sink: Sink, max_bytes: int, too_large: MediaError) -> None:
    if response.status_code != 200:
        raise _download_error(f"the response has status {response.status_code} instead of 200")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise _download_error("the response is compressed, although the request did not allow that")
    content_length = response.headers.get("content-length", "")
    if content_length.isascii() and content_length.isdigit() and int(content_length[:20]) > max_bytes:
        raise too_large
    num_bytes = 0
    async for chunk in response.aiter_raw():
        num_bytes += len(chunk)
        if num_bytes > max_bytes:
            raise too_large
        sink(chunk)


async def _read_file(file: BinaryIO, sink: Sink, max_bytes: int, too_large: MediaError) -> None:
    if os.fstat(file.fileno()).st_size > max_bytes:
        raise too_large
    num_bytes = 0
    while chunk := await run_to_completion(lambda: file.read(_READ_BYTES)):
        num_bytes += len(chunk)
        if num_bytes > max_bytes:  # it has grown since
            raise too_large
        sink(chunk)


async def _decode_data_url(url: str, sink: Sink, max_bytes: int, too_large: MediaError) -> None:
    """Strict base64, in slices that leave the event loop free in between."""
    comma = url.find(",", 0, 1024)
    if comma < 0 or not url[:comma].lower().endswith(_BASE64):
        raise MediaError("invalid_media_url", "A data: URL must have the form data:MEDIA-TYPE;base64,DATA.")
    num_chars = len(url) - comma - 1
    if num_chars % 4:
        raise _base64_error()
    if num_chars // 4 * 3 - url.count("=", len(url) - 2) > max_bytes:
        raise too_large
    for start in range(comma + 1, len(url), _CHUNK_CHARS):
        chunk = url[start : start + _CHUNK_CHARS]
        if "=" in chunk and start + _CHUNK_CHARS < len(url):
            raise _base64_error()
        try:
            data = binascii.a2b_base64(chunk, strict_mode=True)
        except (binascii.Error, ValueError) as error:
            raise _base64_error() from error
        sink(data)
        await asyncio.sleep(0)


def _base64_error() -> MediaError:
    return MediaError(
        "invalid_base64_media",
        "The data: URL is not valid base64 (A-Z a-z 0-9 + /, padded with =, no line breaks and no percent signs).",
    )
