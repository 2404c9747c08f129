"""A medium's source to bytes: `data:` decoded, `http(s):` fetched under guard, files read. The only outbound network.

A host must be of the allowed domains; it is resolved once, every address it has must be public, and the connection goes
to the address that was checked; the host's name stays in the Host header and in TLS. Redirects are followed by hand, so
that each target goes through the same checks. Size and time are limited from the first byte on.

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
from server.core.concurrency import in_thread
from server.core.domains import is_within, split_domains
from server.core.errors import BadRequestError, DeadlineError
from server.core.settings import MediaSettings
from server.media.fetch.local_files import open_uploaded, open_url
from server.media.fetch.public_address import is_public
from server.media.types import LocalFile

Sink = Callable[[bytes], None]
"""Takes the bytes as they come; what it raises ends the fetch."""

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
        """See the class."""
        self._settings = settings
        # A slow name server must not take the threads others need, nor one client those of all.
        self._resolver = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="resolve")
        self._names = FairQueue(_RESOLVER_THREADS, max_per_client=2, max_waiting=_MAX_WAITING)
        self._places = FairQueue(_MAX_FETCHES, max_per_client=_MAX_FETCHES // 2, max_waiting=_MAX_WAITING)
        self._allowed = split_domains(settings.allowed_domains)
        self._denied = split_domains(settings.denied_domains)
        self._file_folder = None if settings.file_folder is None else settings.file_folder.expanduser().absolute()
        self._tls = httpx.create_ssl_context(trust_env=False)

    def close(self) -> None:
        """Give the threads back, without waiting for name servers."""
        self._resolver.shutdown(wait=False, cancel_futures=True)

    async def fetch(self, url: str | LocalFile, sink: Sink, *, max_bytes: int, limit: str, param: str) -> None:
        """Bring the bytes behind a URL or in an uploaded file.

        Args:
            url: `data:…;base64,…`, `http://…`, `https://…` or `file:///…`, or the file.
            sink: gets the bytes.
            max_bytes: how many there may be.
            limit: the setting `max_bytes` comes from, for the error.
            param: the request field, for errors.

        Raises:
            BadRequestError: the URL is malformed, of another scheme, leads where it must not, or does not deliver.
            NotFoundError: the uploaded file was deleted meanwhile.
            DeadlineError: it took longer than `media.fetch_timeout_s`.
        """
        too_large = _too_large_error(max_bytes, limit, param)
        if isinstance(url, LocalFile):
            with open_uploaded(url, param) as file:
                await _read_file(file, sink, max_bytes, too_large)
            return
        if url[: len(_FILE)].lower() == _FILE:
            with open_url(url, self._file_folder, param) as file:
                await _read_file(file, sink, max_bytes, too_large)
            return
        if url[: len(_DATA)].lower() == _DATA:
            await _decode_data_url(url, sink, max_bytes, too_large, param)
            return
        try:
            async with self._places.place(), asyncio.timeout(self._settings.fetch_timeout_s):
                await self._fetch_http(url, sink, max_bytes, too_large, param)
        except TimeoutError as error:
            raise DeadlineError(
                f"The URL took longer than {self._settings.fetch_timeout_s:g} s (media.fetch_timeout_s).", param=param
            ) from error
        except httpx.HTTPError as error:
            raise BadRequestError("The URL could not be fetched: the connection failed.", param=param) from error

    async def _fetch_http(self, text: str, sink: Sink, max_bytes: int, too_large: BadRequestError, param: str) -> None:
        url = self._checked(text, param)
        for _ in range(self._settings.max_redirects + 1):
            async with contextlib.AsyncExitStack() as stack:
                response = await self._get(url, stack, param)
                if response.status_code not in _REDIRECTS:
                    await _read(response, sink, max_bytes, too_large, param)
                    return
                url = self._checked(_redirect_target(url, response, param), param)
        raise BadRequestError(
            f"The URL redirects more than {self._settings.max_redirects} times (media.max_redirects).", param=param
        )

    def _checked(self, text: str, param: str) -> httpx.URL:
        """The URL, of a known scheme and an allowed domain."""
        url = _parse(text, param)
        host = url.raw_host.decode("ascii").lower().rstrip(".")
        if self._allowed and not is_within(host, self._allowed):
            raise BadRequestError(
                "The URL's domain is not one that media are fetched from (media.allowed_domains).", param=param
            )
        if is_within(host, self._denied):
            raise BadRequestError("Media are not fetched from the URL's domain (media.denied_domains).", param=param)
        return url

    async def _get(self, url: httpx.URL, stack: contextlib.AsyncExitStack, param: str) -> httpx.Response:
        """Ask the first address that answers; the response stays open until `stack` closes."""
        host = url.raw_host.decode("ascii")
        addresses = await self._resolve(host, url.port or _DEFAULT_PORTS[url.scheme], param)
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
        raise BadRequestError("The URL could not be fetched: no connection.", param=param) from failure

    async def _resolve(self, host: str, port: int, param: str) -> list[str]:
        """The addresses of a host, all of them checked, best first."""
        await self._names.take()
        looking_up = asyncio.get_running_loop().run_in_executor(
            self._resolver, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        looking_up.add_done_callback(self._end_look_up)
        try:
            found = await asyncio.shield(looking_up)  # the thread goes on, whoever leaves, and keeps its place
        except (OSError, UnicodeError) as error:
            raise BadRequestError("The URL's host cannot be resolved.", param=param) from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if not self._settings.allow_private_networks and not all(map(is_public, addresses)):
            raise BadRequestError(
                "The URL leads to an address that is not public (media.allow_private_networks is off).", param=param
            )
        return addresses

    def _end_look_up(self, looking_up: "asyncio.Future[Any]") -> None:
        self._names.give_back()
        if not looking_up.cancelled():
            looking_up.exception()  # nobody may be left to hear of it


def _parse(text: str, param: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise BadRequestError("The URL is malformed.", param=param) from error
    if url.scheme not in _DEFAULT_PORTS:
        raise BadRequestError("Media URLs are data:, http:, https: or file: URLs.", param=param)
    if not url.raw_host:
        raise BadRequestError("The URL has no host.", param=param)
    if url.userinfo:
        raise BadRequestError("A URL with a user name or password in it is not fetched.", param=param)
    return url


def _redirect_target(url: httpx.URL, response: httpx.Response, param: str) -> str:
    location = response.headers.get("location")
    if not location:
        raise BadRequestError("The URL redirects to nowhere.", param=param)
    try:
        return str(url.join(location))
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise BadRequestError("The URL redirects to a malformed one.", param=param) from error


async def _read(response: httpx.Response, sink: Sink, max_bytes: int, too_large: BadRequestError, param: str) -> None:
    if response.status_code != 200:
        raise BadRequestError(f"The URL answered with status {response.status_code}, not 200.", param=param)
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise BadRequestError("The URL answered with a compressed body, which was not asked for.", param=param)
    announced = response.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and int(announced[:20]) > max_bytes:
        raise too_large
    num_bytes = 0
    async for chunk in response.aiter_raw():
        num_bytes += len(chunk)
        if num_bytes > max_bytes:
            raise too_large
        sink(chunk)


async def _read_file(file: BinaryIO, sink: Sink, max_bytes: int, too_large: BadRequestError) -> None:
    if os.fstat(file.fileno()).st_size > max_bytes:
        raise too_large
    num_bytes = 0
    while chunk := await in_thread(lambda: file.read(_READ_BYTES)):
        num_bytes += len(chunk)
        if num_bytes > max_bytes:  # it has grown meanwhile
            raise too_large
        sink(chunk)


async def _decode_data_url(url: str, sink: Sink, max_bytes: int, too_large: BadRequestError, param: str) -> None:
    """Strict base64, in slices that leave the event loop free in between."""
    comma = url.find(",", 0, 1024)
    if comma < 0 or not url[:comma].lower().endswith(_BASE64):
        raise BadRequestError("A data: URL is data:MEDIA-TYPE;base64,DATA.", param=param)
    num_chars = len(url) - comma - 1
    if num_chars % 4:
        raise _base64_error(param)
    if num_chars // 4 * 3 - url.count("=", len(url) - 2) > max_bytes:
        raise too_large
    for start in range(comma + 1, len(url), _CHUNK_CHARS):
        chunk = url[start : start + _CHUNK_CHARS]
        if "=" in chunk and start + _CHUNK_CHARS < len(url):
            raise _base64_error(param)
        try:
            sink(binascii.a2b_base64(chunk, strict_mode=True))
        except (binascii.Error, ValueError) as error:
            raise _base64_error(param) from error
        await asyncio.sleep(0)


def _base64_error(param: str) -> BadRequestError:
    return BadRequestError(
        "The data: URL is not base64 (A-Z a-z 0-9 + /, padded with =, no line breaks and no percent signs).",
        param=param,
    )


def _too_large_error(max_bytes: int, limit: str, param: str) -> BadRequestError:
    return BadRequestError(f"It is larger than {max_bytes} bytes ({limit}).", param=param)
