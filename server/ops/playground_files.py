"""The page at `/` and its files: read once, kept in memory, and what a browser is told along with them.

They are the same for all and hold no secrets, so they need no key; what the page then asks of the API does.

What it does not: know what is in the files (`clients/web/` does).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

INDEX_PATH = "/"
FILES_PATH = "/playground/"
"""Where the page's files lie."""
FOLDER = Path(__file__).parents[2] / "clients" / "web"

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
"""Of every file. `blob:` is what the person chose on their own machine. Whatever an answer says, the browser fetches
nothing from elsewhere, and only DOMPurify may turn text into markup. no-cache: browsers keep files, and ask each time
whether theirs are current."""

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
    ".mp4": "video/mp4",
}
"""What is served, by the ending of its name; other files of the folder (licences, notes) are not."""


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file as it is served."""

    content: bytes
    media_type: str
    etag: str
    """Changes with the content."""


def read_page(folder: Path = FOLDER) -> dict[str, PageFile]:
    """The files of a page, by the paths they are served at.

    Args:
        folder: holds `index.html`, which becomes `/`, and what it names.

    Raises:
        FileNotFoundError: there is no index, so the installation is not whole.
    """
    index = folder / "index.html"
    others = (path for path in folder.rglob("*") if path.suffix in _TYPES and path != index)
    return {
        INDEX_PATH: _page_file(index),
        **{FILES_PATH + path.relative_to(folder).as_posix(): _page_file(path) for path in others},
    }


def _page_file(path: Path) -> PageFile:
    content = path.read_bytes()
    return PageFile(content, _TYPES[path.suffix], f'"{sha256(content).hexdigest()[:32]}"')
