"""Damaged media of every container, codec and image format, through the real workers: an answer or a client's error.

`FUZZ_SECONDS` goes on for so long with ever new damage; without it, the same few are made of each file every time.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from server.core.errors import ApiError
from server.media.preprocessor import MediaPreprocessor
from tests.server.media.decode.test_image_files import PHOTO, avif, page, tiff, with_cicp
from tests.server.media.decode.test_tracks import ALPHA, MORE_CODECS, animated_avif, encode_alpha, see_through
from tests.server.media.decode.test_video import CONTAINERS
from tests.server.media.decode.test_wide_color import HLG, PQ, encode_hdr, made_hdr, patches
from tests.support.heif import grid, heic
from tests.support.images import encoded
from tests.support.media_service import image_part, running, video_part
from tests.support.videos import animated_webp, encode, numbered

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("FUZZ_SECONDS", "0"))
PER_FILE = 2
HANG_S = 240  # videos are decoded in idle time, and a busy machine has little

SMALL = PHOTO[:96, :128]


def images() -> Iterator[tuple[str, bytes]]:
    picture = Image.fromarray(SMALL)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"):
        yield kind, encoded(picture, kind)
    yield "progressive", encoded(picture, "JPEG", progressive=True)
    yield "palette", encoded(picture.quantize(16), "PNG")
    yield "LZW", encoded(picture, "TIFF", compression="tiff_lzw")
    yield "pages", encoded(picture, "TIFF", save_all=True, append_images=[picture, picture])
    planes = [(SMALL[..., n].astype(np.uint16) * 257).tobytes() for n in range(3)]
    tags = page(96, 128, 8, [len(plane) for plane in planes], t262=2, t277=3, t284=2) | {258: (3, [16] * 3)}
    yield "planes", tiff([tags], planes)
    yield "HEIC", heic(SMALL)
    yield "HEIC with alpha", heic(np.dstack([SMALL, SMALL[..., :1]]))
    yield "HEIC grid", grid(SMALL, 64, quarter_turns=1)
    yield "HDR AVIF", avif(made_hdr(patches(), PQ), 9, PQ)
    yield "HDR PNG", with_cicp(encoded(picture), 9, PQ)


def videos() -> Iterator[tuple[str, bytes]]:
    for container, codec, options, pixel_format in CONTAINERS:
        yield f"{container} {codec}", encode(numbered(8), container, codec, options=options, pixel_format=pixel_format)
    for container, codec, pixel_format in MORE_CODECS:
        if codec not in ("dnxhd", "mpeg2video"):
            frames = numbered(4, height=288, width=352)
            yield f"{container} {codec}", encode(frames, container, codec, pixel_format=pixel_format)
    for container, codec, pixel_format, options in ALPHA:
        yield f"{container} {codec} alpha", encode_alpha(container, codec, pixel_format, **options)
    for transfer in (PQ, HLG):
        yield f"HDR {transfer}", encode_hdr(made_hdr(patches(), transfer), "HEVC", 9, transfer)
    yield "animated WebP", animated_webp(numbered(6), 250)
    yield "animated AVIF", animated_avif(numbered(6), 250)
    yield "animated AVIF with alpha", animated_avif(see_through(6), 250)
    yield "HEIC as a video", heic(SMALL)


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 3, 20])):
        data[int(rng.random() ** rng.choice([1, 3]) * len(data))] ^= 1 << rng.randrange(8)  # headers more often


def overwrite(data: bytearray, rng: random.Random) -> None:
    number = rng.choice([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF])
    place = int(rng.random() ** 2 * len(data))
    data[place : place + 4] = number.to_bytes(4, rng.choice(["big", "little"]))


def remove(data: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(data))
    del data[place : place + rng.choice([1, 2, 4, 100])]


def repeat(data: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(data))
    data[place:place] = data[place : place + rng.choice([1, 8, 500])] * rng.choice([1, 4])


def noise(data: bytearray, rng: random.Random) -> None:
    place = rng.randrange(len(data))
    data[place : place + rng.choice([4, 64, 2000])] = rng.randbytes(rng.choice([4, 64, 2000]))


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (cut, flip, overwrite, remove, repeat, noise)


def damaged(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        if changed:
            rng.choice(DAMAGES)(changed, rng)
    return bytes(changed)


async def outcome(service: MediaPreprocessor, data: bytes, modality: str) -> str:
    """`prepared`, or the code of the client's error; fails for anything else."""
    part = image_part(data) if modality == "image" else video_part(data, max_pixels=50_176, max_frames=4)
    try:
        async with asyncio.timeout(HANG_S):
            (item,) = await service.prepare([part], "tenant")
    except ApiError as error:
        assert error.status < 500, error.message
        assert error.message.strip().endswith((".", ")")), error.message
        return str(error.code)
    item.release()
    return "prepared"


@pytest.mark.timeout(max(600, SECONDS + 300))
@pytest.mark.parametrize(("modality", "made"), [("image", images), ("video", videos)])
async def test_damage_is_an_answer_or_a_clients_error(
    modality: str, made: Callable[[], Iterator[tuple[str, bytes]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    files = dict(made())
    root = Path("/dev/shm") / f"test-{os.getpid()}-{modality}"
    root.mkdir()
    seen: dict[str, int] = {}
    rng = random.Random(int(time.time()) if SECONDS else 1)
    try:
        async with running(root, decode_timeout_s=200, num_workers=2) as service:
            for name, data in files.items():
                assert await outcome(service, data, modality) == "prepared", name
            started_s, number = time.monotonic(), 0
            while number < PER_FILE or time.monotonic() - started_s < SECONDS / 2:
                for name, data in files.items():
                    hurt = damaged(data, rng)
                    try:
                        code = await outcome(service, hurt, modality)
                    except (AssertionError, TimeoutError) as error:
                        (Path(tmp_path_factory.getbasetemp()) / f"hurt-{modality}-{number}").write_bytes(hurt)
                        raise AssertionError(f"{name}, damage {number}: {error}") from error
                    seen[code] = seen.get(code, 0) + 1
                number += 1
    finally:
        root.rmdir()
    print(modality, number * len(files), dict(sorted(seen.items())), f"{service.load.num_restarts} restarts")
    assert seen["prepared"] and len(seen) > 1
