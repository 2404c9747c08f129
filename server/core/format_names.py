"""Names a file's format by its first bytes, also where it is not read, and says what to do with one that is not. Pure.

Source: the formats' own signatures; ISO/IEC 14496-12 for the boxes of MP4 and HEIF, ISO/IEC 18181-2 for JPEG XL's.
"""

import re

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"%PDF-", "PDF"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\x01\0", "ICO"),
    (b"8BPS", "PSD"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"IIRO", "Raw camera"),
    (b"IIU\0", "Raw camera"),
    (b"FUJIFILMCCD-RAW", "Raw camera"),
    (b"FOVb", "Raw camera"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"ID3", "MP3"),
    (b"fLaC", "FLAC"),
    (b"\xd0\xcf\x11\xe0", "Microsoft Office"),
)
HEAD_TEXT_BYTES = 2048
"""How far into a text the element is looked for that says what it is."""
_NETPBM = re.compile(rb"^P[1-7]\s")
_BRANDS = {
    "AVIF": (b"avif", b"avis"),
    "HEIC": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1", b"mif2"),
    "Raw camera": (b"crx ",),
}
_AS_IMAGE = "convert it to PNG or JPEG"
_INSTEAD = {
    "PDF": "send each page as an image (PNG or JPEG), or its text",
    "SVG": "draw it as a PNG, or send its source as text",
    "JPEG XL": _AS_IMAGE,
    "JPEG 2000": _AS_IMAGE,
    "ICO": _AS_IMAGE,
    "PSD": _AS_IMAGE,
    "Netpbm": _AS_IMAGE,
    "OpenEXR": _AS_IMAGE,
    "Radiance HDR": _AS_IMAGE,
    "Raw camera": "convert it to JPEG",
    "ZIP": "send the files in it one by one",
    "gzip": "send what is in it",
    "HTML": "send the address of the image or video itself, not of the page that shows it",
    "MP3": "sound is not read; send text",
    "FLAC": "sound is not read; send text",
    "WAV": "sound is not read; send text",
    "Microsoft Office": "send its pages as images, or its text",
}


def name_format(head: bytes) -> str | None:
    """What a file is, as people call it.

    Args:
        head: its first bytes, up to `mime.HEAD_BYTES`.

    Returns:
        None if it is nothing that is known here.
    """
    if head[:4] == b"RIFF":
        return {b"WEBP": "WebP", b"WAVE": "WAV", b"AVI ": "AVI"}.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _brand_name(head)
    if head[:4] in (b"II*\0", b"MM\0*") and head[8:10] == b"CR":
        return "Raw camera"
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    return "Netpbm" if _NETPBM.match(head) else _markup_name(head)


def _markup_name(head: bytes) -> str | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:HEAD_TEXT_BYTES].lower()
    if not text.startswith(b"<"):
        return None
    return "SVG" if b"<svg" in text else "HTML" if b"<html" in text or text.startswith(b"<!doctype html") else None


def refusal(head: bytes) -> str | None:
    """Why a file's format is not read and what to do instead, as a sentence; None where it is read, or unknown."""
    name = name_format(head)
    instead = _INSTEAD.get(name or "")
    return f"{name} files are not supported; {instead}." if name and instead else None


def brands(head: bytes) -> set[bytes]:
    """The brands of an ISO file, such as MP4 and HEIF; none of other files."""
    if head[4:8] != b"ftyp":
        return set()
    size = int.from_bytes(head[:4])
    return {head[start : start + 4] for start in (8, *range(16, min(size, len(head)), 4))}


def _brand_name(head: bytes) -> str | None:
    """`mif1` alone does not tell HEIC from AVIF, so that AVIF comes first."""
    own, all_of_it = head[8:12], brands(head)
    if all_of_it & {*_BRANDS["AVIF"]}:
        return "AVIF"
    return next((name for name, names in _BRANDS.items() if own in names), "MP4")
