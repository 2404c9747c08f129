"""Detects from its first bytes whether a file is an image or a video, never from a name or a declared type. Pure.

The file may still be damaged, which the decoders detect. PNG, WebP and GIF files whose header says that they are
animated are videos; of other animations only the first image is used.

Source: the containers' own signatures; APNG's acTL comes before the first IDAT, WebP's VP8X has a flag, GIF's loop
extension is Netscape's.
"""

from model_executor.engine import Modality
from server.core.format_names import name_format

HEAD_BYTES = 4096
"""How many of a file's first bytes are inspected."""

_ISO_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_IMAGES = (b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_VIDEOS = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"FLV\x01",
    b"OggS",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF
    b"\0\0\x01\xba",  # MPEG program stream
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01",  # MXF
    b"\x1f\x07\0",  # DV
)
_GIF_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
_WEBP_ANIMATION = 0x02
_TS_SYNC = 0x47
_TS_LAYOUTS = ((0, 188), (4, 192))
"""Offset of the first sync byte and distance between them: broadcast, and with four-byte time codes."""


def detect_modality(head: bytes) -> Modality | None:
    """The modality of a file.

    Args:
        head: its first bytes, up to `HEAD_BYTES`.

    Returns:
        None if it is neither an image nor a video in a supported format.
    """
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "video" if b"acTL" in head.partition(b"IDAT")[0] else "image"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "video" if any(mark in head for mark in _GIF_LOOPS) else "image"
    if head.startswith(b"RIFF"):
        return _riff_modality(head)
    if head[4:8] in _ISO_BOXES:
        return _iso_modality(head)
    if head.startswith(_IMAGES):
        return "image"
    return "video" if head.startswith(_VIDEOS) or _is_transport_stream(head) else None


def _riff_modality(head: bytes) -> Modality | None:
    if head[8:12] == b"WEBP":
        is_animated = head[12:16] == b"VP8X" and len(head) > 20 and head[20] & _WEBP_ANIMATION
        return "video" if is_animated else "image"
    return "video" if head[8:12] == b"AVI " else None


def _iso_modality(head: bytes) -> Modality | None:
    """MP4, MOV and the images that share their container."""
    name = name_format(head) if head[4:8] == b"ftyp" else "MP4"
    return "image" if name in ("AVIF", "HEIC") else "video" if name == "MP4" else None


def _is_transport_stream(head: bytes) -> bool:
    return any(
        len(head) > first + 2 * step and all(head[first + number * step] == _TS_SYNC for number in range(3))
        for first, step in _TS_LAYOUTS
    )
