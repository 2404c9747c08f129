"""What the documents say in numbers and names, held to the code it is about."""

import re
from pathlib import Path

import numpy as np
import pytest

from model_executor.checkpoint.processor_files import DEFAULT_IMAGE_MAX_PIXELS, DEFAULT_IMAGE_MIN_PIXELS
from model_executor.families.family import Family
from model_executor.families.known import FAMILIES
from model_executor.families.qwen2_5_vl import QWEN2_5_VL
from model_executor.families.qwen_vl import QWEN_VL
from model_executor.processor.geometry import Grid, Size, fit, image_grid, num_video_frames, video_grid, video_size
from model_executor.processor.mrope_positions import MediaSpan, mrope_positions, num_positions
from server.core.settings import declarations

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
VIDEO_RATE = 30
CHANNELS = 3


def table(page: str, name: str) -> list[list[str]]:
    """The cells of the table that follows a mark."""
    text = (ROOT / "docs" / page).read_text("utf-8").partition(f"<!-- {name} -->\n")[2]
    lines = text.partition("\n\n")[0].splitlines()[2:]
    assert lines, f"{page} has no table {name}"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def size(cell: str) -> Size:
    width, height = map(int, cell.split(" x "))
    return Size(height, width)


def mib(frames: int, seen: Size) -> str:
    return f"{frames * seen.height * seen.width * CHANNELS / (1 << 20):.1f}"


@pytest.mark.parametrize("row", table("sizing.md", "images"), ids=lambda row: row[0])
def test_what_an_image_takes(row: list[str]) -> None:
    sent = size(row[0])
    seen = fit(sent.height, sent.width, min_pixels=DEFAULT_IMAGE_MIN_PIXELS, max_pixels=DEFAULT_IMAGE_MAX_PIXELS)
    assert row[1:] == [f"{seen.width} x {seen.height}", str(image_grid(seen).num_tokens), mib(1, seen)]


@pytest.mark.parametrize("row", table("sizing.md", "videos"), ids=lambda row: row[0])
def test_what_a_video_takes(row: list[str]) -> None:
    sent, duration_s = row[0].removesuffix(" s").split(", ")
    frames = num_video_frames(int(duration_s) * VIDEO_RATE, float(duration_s))
    seen = video_size(size(sent).height, size(sent).width, frames)
    tokens = video_grid(seen, frames).num_tokens
    assert row[1:] == [str(frames), f"{seen.width} x {seen.height}", str(tokens), mib(frames, seen)]


@pytest.mark.parametrize("row", table("sizing.md", "models"), ids=lambda row: row[0])
def test_what_a_model_keeps_for_a_token(row: list[str]) -> None:
    layers, heads, head_size, num_bytes, video_mib = map(int, row[1:6])
    assert num_bytes == 2 * layers * heads * head_size * 2
    assert video_mib == num_bytes * 16_384 / (1 << 20)


def time_of(family: Family) -> str:
    if family.frames_as_images:
        return f"{family.frames_as_images} frames as images"
    return "positions count seconds" if family.time_ids_per_s({"vision_config": {}}) else "one position a slice"


def test_what_qwen_vl_takes() -> None:
    text = (ROOT / "docs" / "sizing.md").read_text("utf-8")
    assert QWEN_VL.image_size is not None
    seen, tokens = QWEN_VL.image_size, image_grid(QWEN_VL.image_size).num_tokens
    assert f"every image at {seen.width} x {seen.height} pixels, for {tokens} tokens" in text
    heads, layers, per_token, mib_of_context, context = map(
        int,
        re.findall(
            r"of its (\d+) heads in (\d+) layers: (\d+) bytes a token, (\d+) MiB for its context of (\d+)", text
        )[0],
    )
    assert per_token == 2 * heads * layers * 128 * 2
    assert mib_of_context == per_token * context / (1 << 20)


def test_the_families_are_those_that_are_served() -> None:
    corners = {"thousandth": "thousandths of the image's sides", "pixel": "pixels of the image as the model sees it"}
    assert table("models.md", "families") == [
        [
            family.name,
            f"`{family.architecture}`",
            corners[family.box_unit],
            time_of(family),
        ]
        for family in FAMILIES
    ]


def test_the_position_table_takes_what_it_is_said_to_take() -> None:
    rows, megabytes = re.findall(r"has ([\d ]+) rows \((\d+) MB\)", (ROOT / "docs" / "sizing.md").read_text("utf-8"))[0]
    extra = num_positions(0, QWEN2_5_VL.time_ids_per_s({"vision_config": {}}))
    assert int(rows.replace(" ", "")) == extra
    assert int(megabytes) == extra * 128 * 4 // 1_000_000


def test_the_drawn_positions_are_the_computed_ones() -> None:
    drawing = (ROOT / "docs" / "how-it-works.md").read_text("utf-8").partition("<!-- positions -->")[2]
    rows = {line.split()[0]: line.split()[1:] for line in drawing.split("```")[1].splitlines() if line.strip()}
    tokens = rows["token"]
    spans = [MediaSpan(tokens.index("P"), Grid(1, 4, 6)), MediaSpan(tokens.index("C"), Grid(2, 2, 4))]
    positions, _ = mrope_positions(len(tokens), spans)
    drawn = np.array([[int(number) for number in rows[axis]] for axis in ("time", "row", "column")])
    assert np.array_equal(drawn, positions)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_named_in_documents_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    variables = {declared.variable for declared in declarations()}
    flags = {declared.flag for declared in declarations()}
    named = set(re.findall(r"TESSERA_[A-Z_]+[A-Z]", text))
    begun = {name for name in named if f"{name}_…" in text}  # a family of settings
    assert not {name for name in named - begun if name not in variables} - {"TESSERA"}
    assert all(any(variable.startswith(name) for variable in variables) for name in begun)
    assert not set(re.findall(r"--(?:engine|media|files)\.[a-z-]+", text)) - flags
