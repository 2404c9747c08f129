"""From URLs to patches in shared memory, and that everything is given back whatever happens."""

import asyncio
import io
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import skimage.data
from PIL import Image

from model_executor.processor.geometry import Grid, Size, image_grid, smart_resize
from model_executor.processor.patches import row_bytes, write_clip_frame, write_picture
from server.core.errors import BadRequestError, DeadlineError, RateLimitError
from server.media.decode.image import ImageDecoder
from server.media.preprocessor import MediaService
from server.media.types import MediaPart, PixelLimits
from tests.support.images import data_url, encoded, png_header
from tests.support.media_service import CLIP, PHOTO, clip_part, files, image_part, running
from tests.support.site import open_site
from tests.support.videos import BUDGET, numbered, real_clip, remux, sampled, silent_audio

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(root: Path) -> AsyncIterator[MediaService]:
    async with running(root) as service:
        yield service


async def test_photo_becomes_rows_in_shared_memory(service: MediaService, root: Path) -> None:
    [media] = await service.prepare([image_part(PHOTO)], "t")
    size = smart_resize(512, 512, min_pixels=3136, max_pixels=12_845_056)
    assert (media.modality, media.grid, media.size, media.source_size) == (
        "image",
        image_grid(size),
        size,
        Size(512, 512),
    )
    expected = np.empty((media.grid.num_patches, row_bytes(1)), np.uint8)
    write_picture(expected, media.grid, ImageDecoder(io.BytesIO(PHOTO), max_source_pixels=10**6).render(size))
    assert np.array_equal(np.fromfile(media.path, np.uint8).reshape(expected.shape), expected)
    assert service.load.shared_bytes == expected.nbytes
    assert Path(media.path).is_relative_to(root)
    media.release()
    media.release()
    assert service.load.shared_bytes == 0
    assert files(root) == []


async def test_clip_becomes_rows_in_shared_memory(service: MediaService) -> None:
    data = real_clip("bikes")
    [media] = await service.prepare([clip_part(data)], "t")
    clip, frames = sampled(data, BUDGET)
    assert (media.grid, media.size, media.source_size) == (Grid(10, 20, 46), Size(280, 644), Size(272, 640))
    assert media.frame_times_s == clip.frame_times_s
    assert media.effective_fps == 2.0
    expected = np.empty((media.grid.num_patches, row_bytes(2)), np.uint8)
    for index, frame in enumerate(frames):
        write_clip_frame(expected, media.grid, index, frame)
    assert np.array_equal(np.fromfile(media.path, np.uint8).reshape(expected.shape), expected)
    media.release()


async def test_list_of_frames_is_a_clip(service: MediaService) -> None:
    urls = tuple(data_url(encoded(Image.fromarray(pixels), "PNG")) for pixels in numbered(3))
    [media] = await service.prepare([MediaPart("video", urls, "v", PixelLimits(fps=1.0))], "t")
    assert media.grid.t == 2
    assert media.frame_times_s == (0.0, 1.0, 2.0, 2.0)
    assert Path(media.path).stat().st_size == media.grid.num_patches * row_bytes(2)
    media.release()


async def test_parts_come_back_in_order(service: MediaService) -> None:
    parts = [image_part(encoded(Image.new("RGB", (28 * n, 56)), "PNG"), f"p{n}") for n in range(2, 9)]
    prepared = await service.prepare([*parts, clip_part(CLIP)], "t")
    assert [media.size.width for media in prepared[:-1]] == [28 * n for n in range(2, 9)]
    assert prepared[-1].modality == "video"
    for media in prepared:
        media.release()


async def test_no_parts_are_no_work(service: MediaService) -> None:
    assert await service.prepare([], "t") == []


async def test_digest_covers_content_parameters_and_tenant(service: MediaService) -> None:
    async def digest(part: MediaPart, tenant: str = "t") -> str:
        [media] = await service.prepare([part], tenant)
        media.release()
        return media.digest

    frame = encoded(Image.fromarray(next(iter(numbered(1)))), "PNG")
    other = encoded(Image.fromarray(skimage.data.astronaut()[::-1]), "JPEG")
    assert await digest(image_part(PHOTO)) == await digest(image_part(PHOTO, "elsewhere"))
    different = [
        await digest(image_part(PHOTO)),
        await digest(image_part(PHOTO), "somebody else"),
        await digest(image_part(PHOTO, max_pixels=100_000)),
        await digest(image_part(PHOTO, resized_height=280, resized_width=280)),
        await digest(image_part(other)),
        await digest(image_part(frame)),
        await digest(MediaPart("video", (data_url(frame),), "v")),
        await digest(MediaPart("video", (data_url(frame), data_url(frame)), "v")),
        await digest(clip_part(CLIP)),
        await digest(clip_part(CLIP, fps=1.0)),
        await digest(clip_part(CLIP, video_end_s=1.0)),
        await digest(clip_part(CLIP, total_pixels=10**6)),
    ]
    assert len(set(different)) == len(different)
    assert all(len(each) == 64 for each in different)


REFUSED = {
    "zero bytes": image_part(b""),
    "truncated jpeg": image_part(PHOTO[:5000]),
    "corrupt png": image_part(png_header(100, 100)),
    "text as a picture": image_part(b"hello"),
    "clip as a picture": image_part(CLIP),
    "huge png": image_part(png_header(50_000, 50_000)),
    "ratio 201": image_part(encoded(Image.new("RGB", (2010, 10)), "PNG")),
    "wrong base64": MediaPart("image", "data:image/png;base64,!!!!", "image"),
    "file": MediaPart("image", "file:///etc/passwd", "image"),
    "loopback": MediaPart("image", "http://127.0.0.1:9/", "image"),
    "metadata": MediaPart("video", "http://169.254.169.254/latest", "video"),
    "zero byte clip": clip_part(b""),
    "truncated clip": clip_part(CLIP[:1000]),
    "picture as a clip": clip_part(PHOTO),
    "audio only": clip_part(silent_audio()),
    "unknown codec": clip_part(CLIP.replace(b"avc1", b"zzzz")),
    "bad frame": MediaPart("video", (data_url(PHOTO), data_url(b"x")), "video"),
    "negative pixels": image_part(PHOTO, max_pixels=-1),
    "start past the end": clip_part(CLIP, video_start_s=100.0),
}


@pytest.mark.parametrize("part", REFUSED.values(), ids=REFUSED.keys())
async def test_unusable_part_is_refused_at_once_and_the_rest_given_back(
    service: MediaService, root: Path, part: MediaPart
) -> None:
    started_s = time.perf_counter()
    with pytest.raises(BadRequestError) as caught:
        await service.prepare([image_part(PHOTO, "good"), part], "t")
    assert time.perf_counter() - started_s < 5
    assert caught.value.param == part.param
    assert str(root) not in caught.value.message
    assert "127.0.0.1" not in caught.value.message
    assert service.load.shared_bytes == 0
    assert files(root) == []
    assert service.load.num_waiting == 0


async def test_too_many_parts_are_refused(service: MediaService) -> None:
    with pytest.raises(BadRequestError, match="33 pictures and clips; at most 32") as caught:
        await service.prepare([image_part(PHOTO, f"p{number}") for number in range(33)], "t")
    assert caught.value.param == "p32"


async def test_cancelled_request_gives_everything_back(service: MediaService, root: Path) -> None:
    for delay_s in (0.0, 0.01, 0.05, 0.2):
        task = asyncio.create_task(service.prepare([clip_part(real_clip("bigbuckbunny")), image_part(PHOTO)], "t"))
        await asyncio.sleep(delay_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert service.load.shared_bytes == 0
        assert files(root) == []
    [media] = await service.prepare([image_part(PHOTO)], "t")
    media.release()


async def test_event_loop_stays_free_while_media_is_prepared(service: MediaService) -> None:
    parts = [clip_part(real_clip("bikes")), image_part(encoded(Image.fromarray(skimage.data.retina()), "BMP"))]
    task = asyncio.create_task(service.prepare(parts, "t"))
    longest_s = 0.0
    while not task.done():
        started_s = time.perf_counter()
        await asyncio.sleep(0.001)
        longest_s = max(longest_s, time.perf_counter() - started_s)
    for media in await task:
        media.release()
    assert longest_s < 1  # milliseconds on an idle machine


@pytest.mark.slow
async def test_urls_are_fetched_into_shared_memory(tmp_path: Path) -> None:
    async with open_site() as site, running(tmp_path, allow_private_networks=True, fetch_timeout_s=4) as service:
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(PHOTO)}\r\n\r\n".encode()
        site.answers["/photo"] = head + PHOTO
        site.answers["/drip"] = _never
        [media] = await service.prepare([MediaPart("image", site.url("/photo"), "p")], "t")
        assert media.source_size == Size(512, 512)
        media.release()
        with pytest.raises(DeadlineError) as caught:
            await service.prepare([image_part(PHOTO), MediaPart("image", site.url("/drip"), "slow")], "t")
        assert caught.value.param == "slow"


async def _never(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


async def test_stages_are_timed_and_what_the_cache_has_is_only_fetched(tmp_path: Path) -> None:
    async with running(tmp_path, num_workers=1, max_cache_bytes=1 << 30) as service:
        for _ in range(3):
            (prepared,) = await service.prepare([image_part(PHOTO)], "t")
            prepared.release()
        stages = service.load.stages
    assert {stage: load.num for stage, load in stages.items()} == {"fetch": 3, "queue": 2, "header": 1, "decode": 1}
    assert all(load.total_s > 0 for load in stages.values())


async def test_limits_in_bytes_and_memory_hold(tmp_path: Path) -> None:
    limits = {"max_image_bytes": 3000, "max_video_bytes": 5000, "max_shared_bytes": 1 << 20, "num_workers": 1}
    async with running(tmp_path, **limits) as service:
        small = encoded(Image.new("RGB", (56, 56)), "PNG")
        cases: list[tuple[MediaPart, str]] = [
            (image_part(bytes(3001)), r"larger than 3000 bytes \(media\.max_image_bytes\)"),
            (clip_part(bytes(5001)), r"larger than 5000 bytes \(media\.max_video_bytes\)"),
            (MediaPart("video", (data_url(bytes(3001)),), "v"), r"larger than 3000 bytes \(media\.max_image_bytes\)"),
            (MediaPart("video", (data_url(bytes(2000)),) * 3, "v"), r"together larger than 5000 bytes"),
        ]
        for part, message in cases:
            with pytest.raises(BadRequestError, match=message):
                await service.prepare([part], "t")
        held = await service.prepare([image_part(small, min_pixels=pixels) for pixels in (100_000, 110_000)], "t")
        for pixels in (350_000, 150_000):
            with pytest.raises(RateLimitError, match="max_shared_bytes"):
                await service.prepare([image_part(small, min_pixels=pixels)], "t")
        for media in held:
            media.release()


async def test_patches_of_a_released_request_stay_readable_where_they_are_mapped(service: MediaService) -> None:
    [media] = await service.prepare([image_part(PHOTO)], "t")
    mapped = np.memmap(media.path, np.uint8, mode="r")
    before = mapped.copy()
    media.release()
    assert np.array_equal(mapped, before)


async def test_sums_of_a_request_are_limited_and_everything_given_back(tmp_path: Path) -> None:
    small = encoded(Image.new("RGB", (56, 56)), "PNG")
    async with running(tmp_path, num_workers=1, max_request_bytes=2 * len(small), max_cache_bytes=0) as service:
        with pytest.raises(BadRequestError, match="max_request_bytes"):
            await service.prepare([image_part(small, f"p{n}") for n in range(3)], "t")
        assert service.load.shared_bytes == 0


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"max_request_tokens": 9}, r"12 tokens together; at most 9 are taken \(media\.max_request_tokens\)"),
        ({"max_request_pixels": 9000}, r"9408 pixels .* at most 9000"),
    ],
)
async def test_sums_are_checked_from_headers_before_anything_is_decoded(
    tmp_path: Path, limit: dict[str, int], message: str
) -> None:
    small = encoded(Image.new("RGB", (56, 56)), "PNG")
    async with running(tmp_path, num_workers=1, max_cache_bytes=1 << 20, **limit) as service:
        with pytest.raises(BadRequestError, match=message):
            await service.prepare([image_part(small, f"p{n}", max_pixels=10**6 - n) for n in range(3)], "t")
        assert service.load.cache.num_misses == 0
        for medium in await service.prepare([image_part(small, f"p{n}", max_pixels=10**6 - n) for n in range(2)], "t"):
            medium.release()
        assert service.load.cache.num_misses == 2
        with pytest.raises(BadRequestError, match=message):  # what is in the cache counts as well
            await service.prepare([image_part(small, f"p{n}", max_pixels=10**6 - n) for n in range(3)], "t")
        assert service.load.cache.num_misses == 2


async def test_sums_of_clips_are_checked_before_anything_is_decoded(tmp_path: Path) -> None:
    limits: list[tuple[dict[str, Any], str]] = [
        ({"max_request_frames": 7}, "8 sampled frames together; at most 7"),
        ({"max_request_s": 3.5}, "4 seconds of clips together; at most 3.5"),
    ]
    for limit, message in limits:
        async with running(tmp_path, num_workers=1, **limit) as service:
            with pytest.raises(BadRequestError, match=message):
                await service.prepare([clip_part(CLIP, "a"), clip_part(CLIP, "b")], "t")
            assert service.load.cache.num_misses == 0
            [medium] = await service.prepare([clip_part(CLIP)], "t")
            medium.release()


async def test_damaged_clip_holds_the_memory_of_what_it_became(tmp_path: Path) -> None:
    data = bytearray(remux(real_clip("bikes"), tmp_path / "clip.mp4", options={"movflags": "faststart"}))
    data[len(data) // 2 :] = np.random.default_rng(0).bytes(len(data) - len(data) // 2)
    root = tmp_path / "shared"
    root.mkdir()
    async with running(root) as service:
        [medium] = await service.prepare([clip_part(bytes(data))], "t")
        assert "do not decode" in medium.notes[0]
        assert os.path.getsize(medium.path) == service.load.shared_bytes == medium.grid.num_patches * row_bytes(2)
        medium.release()
