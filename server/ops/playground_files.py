"""The playground's files and their HTTP headers, read once at startup and kept in memory.

They contain no secrets, so they require no key; the API requests that the page then sends do. The files themselves are
in `clients/web/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

INDEX_PATH = "/"
FILES_PATH = "/playground/"
"""Prefix of the paths of the page's files."""
PAGE_DIR = Path(__file__).parents[2] / "clients" / "web"

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "font-src 'self'",
            "connect-src 'self'",
            "img-src 'self' blob:",
            "media-src blob:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types dompurify",
        )
    ),
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""Headers of every file. `blob:` URLs refer to files that the user chose on their own machine. Whatever an answer
contains, the browser loads nothing from other origins, and only DOMPurify may turn text into markup. no-cache: browsers
keep files, and check each time whether their copies are current."""

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
    ".mp4": "video/mp4",
}
"""Media types of the served files by suffix; other files in the directory (licenses, notes) are not served."""


@dataclass(frozen=True, slots=True)
class PageFile:
    """A served file."""

    content: bytes
    media_type: str
    etag: str
    """Changes with the content."""


def read_page(directory: Path = PAGE_DIR) -> dict[str, PageFile]:
    """The files of a page, by URL path.

    Args:
        directory: contains `index.html`, which is served as `/`, and the files that it refers to.

    Raises:
        FileNotFoundError: there is no `index.html`; the installation is incomplete.
    """
    index = directory / "index.html"
    others = (path for path in directory.rglob("*") if path.suffix in _TYPES and path != index)
    return {
        INDEX_PATH: _page_file(index),
        **{FILES_PATH + path.relative_to(directory).as_posix(): _page_file(path) for path in others},
    }


def _page_file(path: Path) -> PageFile:
    content = path.read_bytes()
    return PageFile(content, _TYPES[path.suffix], f'"{sha256(content).hexdigest()[:32]}"')
