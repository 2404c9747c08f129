"""What a file is called, and what is said of one that is not read."""

import time

import pytest

from server.core.format_names import name_format, refusal
from server.core.mime import detect_modality

NAMED: list[tuple[bytes, str]] = [
    (b"%PDF-1.4\n%", "PDF"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'>", "SVG"),
    (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- drawn --><!DOCTYPE svg PUBLIC ''>\n<svg>", "SVG"),
    (b"  \n<?xml version='1.0' encoding='UTF-8' standalone='no'?>\n\n<SVG >", "SVG"),
    (b"<!DOCTYPE html><html><body>404", "HTML"),
    (b"\n<html><head>", "HTML"),
    (b"\xff\x0a\xf8\xbe", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51\0", "JPEG 2000"),
    (b"\0\0\x01\0\x01\0", "ICO"),
    (b"8BPS\0\x01", "PSD"),
    (b"P6\n3 2\n255\n", "Netpbm"),
    (b"P7\nWIDTH 3\n", "Netpbm"),
    (b"\x76\x2f\x31\x01\x02", "OpenEXR"),
    (b"II*\0\x10\0\0\0CR\x02\0", "Raw camera"),
    (b"FUJIFILMCCD-RAW 0201", "Raw camera"),
    (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "Raw camera"),
    (b"PK\x03\x04\x14\0", "ZIP"),
    (b"ID3\x04\0", "MP3"),
    (b"RIFF\x24\0\0\0WAVEfmt ", "WAV"),
]


@pytest.mark.parametrize(("head", "name"), NAMED)
def test_what_is_not_read_is_refused_by_its_name(head: bytes, name: str) -> None:
    assert name_format(head) == name
    said = refusal(head)
    assert said is not None and said.startswith(f"{name} files are not supported; ") and said.endswith(".")
    assert detect_modality(head) in (None, "image")


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0avifmif1miaf", "AVIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomavc1", "MP4"),
        (b"hello", None),
        (b"<p>hello", None),
        (b"", None),
    ],
)
def test_what_is_read_or_unknown_is_not_refused(head: bytes, name: str | None) -> None:
    assert name_format(head) == name
    assert refusal(head) is None


@pytest.mark.parametrize("text", [b" " * 4096, b"<!--" * 1000, b"<?xml " * 600, b"<" + b" " * 4000, b"\n<svg" * 800])
def test_no_text_takes_long(text: bytes) -> None:
    started_s = time.process_time()
    name_format(text)
    assert time.process_time() - started_s < 0.05
