"""From URLs to patches in shared memory, and that everything is given back whatever happens."""

import asyncio
import dataclasses
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
import skimage.data
from PIL import Image

from model_executor.processor.geometry import Grid, Size, image_grid, smart_resize
from model_executor.processor.patches import row_bytes, write_image, write_video_frame
from server.core.errors import ApiError, BadRequestError, DeadlineError, NotFoundError, RateLimitError
from server.media.decode.image import ImageDecoder
from server.media.preprocessor import MediaPreprocessor
from server.media.types import LocalFile, MediaLimits, MediaPart
from tests.support.images import data_url, encoded, png_header
from tests.support.media_service import PHOTO, VIDEO, files, image_part, running, video_part
from tests.support.site import open_site
from tests.support.videos import BUDGET, numbered, real_video, remux, sampled, silent_audio

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(root: Path) -> AsyncIterator[MediaPreprocessor]:
    async with running(root) as service:
        yield service


async def test_photo_becomes_rows_in_shared_memory(service: MediaPreprocessor, root: Path) -> None:
    [media] = await service.prepare([image_part(PHOTO)], "t")
    size = smart_resize(512, 512, min_pixels=3136, max_pixels=12_845_056)
    assert (media.modality, media.grid, media.size, media.source_size) == (
        "image",
        image_grid(size),
        size,
        Size(512, 512),
    )
    expected = np.empty((media.grid.num_patches, row_bytes(1)), np.uint8)
    write_image(expected, media.grid, ImageDecoder(io.BytesIO(PHOTO), max_source_pixels=10**6).render(size))
    assert np.array_equal(np.fromfile(media.path, np.uint8).reshape(expected.shape), expected)
    assert service.load.shared_bytes == expected.nbytes
    assert Path(media.path).is_relative_to(root)
    media.release()
    media.release()
    assert service.load.shared_bytes == 0
    assert files(root) == []


async def test_video_becomes_rows_in_shared_memory(service: MediaPreprocessor) -> None:
    data = real_video("bikes")
    [media] = await service.prepare([video_part(data)], "t")
    video, frames = sampled(data, BUDGET)
    assert (media.grid, media.size, media.source_size) == (Grid(10, 20, 46), Size(280, 644), Size(272, 640))
    assert media.frame_times_s == video.frame_times_s
    assert media.effective_fps == 2.0
    expected = np.empty((media.grid.num_patches, row_bytes(2)), np.uint8)
    for index, frame in enumerate(frames):
        write_video_frame(expected, media.grid, index, frame)
    assert np.array_equal(np.fromfile(media.path, np.uint8).reshape(expected.shape), expected)
    media.release()


async def test_list_of_frames_is_a_clip(service: MediaPreprocessor) -> None:
    urls = tuple(data_url(encoded(Image.fromarray(pixels), "PNG")) for pixels in numbered(3))
    [media] = await service.prepare([MediaPart("video", urls, "v", MediaLimits(fps=1.0))], "t")
    assert media.grid.t == 2
    assert media.frame_times_s == (0.0, 1.0, 2.0, 2.0)
    assert Path(media.path).stat().st_size == media.grid.num_patches * row_bytes(2)
    media.release()


async def test_parts_come_back_in_order(service: MediaPreprocessor) -> None:
    parts = [image_part(encoded(Image.new("RGB", (28 * n, 56)), "PNG"), f"p{n}") for n in range(2, 9)]
    prepared = await service.prepare([*parts, video_part(VIDEO)], "t")
    assert [media.size.width for media in prepared[:-1]] == [28 * n for n in range(2, 9)]
    assert prepared[-1].modality == "video"
    for media in prepared:
        media.release()


async def test_no_parts_are_no_work(service: MediaPreprocessor) -> None:
    assert await service.prepare([], "t") == []


async def test_digest_covers_content_parameters_and_tenant(service: MediaPreprocessor) -> None:
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
        await digest(video_part(VIDEO)),
        await digest(video_part(VIDEO, fps=1.0)),
        await digest(video_part(VIDEO, video_end=1.0)),
        await digest(video_part(VIDEO, total_pixels=10**6)),
    ]
    assert len(set(different)) == len(different)
    assert all(len(each) == 64 for each in different)


REJECTED: dict[str, tuple[MediaPart, str]] = {
    "zero bytes": (image_part(b""), "empty_image_file"),
    "truncated jpeg": (image_part(PHOTO[:5000]), "image_parse_error"),
    "corrupt png": (image_part(png_header(100, 100)), "image_parse_error"),
    "text as an image": (image_part(b"hello"), "invalid_image_format"),
    "video as an image": (image_part(VIDEO), "invalid_image_format"),
    "huge png": (image_part(png_header(50_000, 50_000)), "image_too_large"),
    "ratio 201": (image_part(encoded(Image.new("RGB", (2010, 10)), "PNG")), "invalid_image_aspect_ratio"),
    "32 bits": (image_part(encoded(Image.fromarray(np.zeros((40, 60), np.float32)), "TIFF")), "invalid_image_mode"),
    "wrong base64": (MediaPart("image", "data:image/png;base64,!!!!", "image"), "invalid_base64_image"),
    "file": (MediaPart("image", "file:///etc/passwd", "image"), "invalid_image_url"),
    "loopback": (MediaPart("image", "http://127.0.0.1:9/", "image"), "invalid_image_url"),
    "metadata": (MediaPart("video", "http://169.254.169.254/latest", "video"), "invalid_video_url"),
    "unknown host": (MediaPart("video", "http://no-such-host.invalid/", "video"), "failed_to_download_video"),
    "zero byte video": (video_part(b""), "empty_video_file"),
    "truncated video": (video_part(VIDEO[:1000]), "invalid_video_format"),
    "image as a video": (video_part(PHOTO), "invalid_video_format"),
    "audio only": (video_part(silent_audio()), "invalid_video_format"),
    "unknown codec": (video_part(VIDEO.replace(b"avc1", b"zzzz")), "unsupported_video_codec"),
    "bad frame": (MediaPart("video", (data_url(PHOTO), data_url(b"x")), "video"), "invalid_video_format"),
}


async def check_rejected(service: MediaPreprocessor, root: Path, part: MediaPart) -> ApiError:
    """Prepare a good part and this one; returns the error, after which nothing is held."""
    with pytest.raises(BadRequestError) as caught:
        async with asyncio.timeout(30):
            await service.prepare([image_part(PHOTO, "good"), part], "t")
    assert str(root) not in caught.value.message
    assert "127.0.0.1" not in caught.value.message
    assert service.load.shared_bytes == 0
    assert files(root) == []
    assert service.load.num_waiting == 0
    return caught.value


@pytest.mark.parametrize(("part", "code"), REJECTED.values(), ids=REJECTED.keys())
async def test_an_unusable_part_is_rejected_at_once_and_the_rest_released(
    service: MediaPreprocessor, root: Path, part: MediaPart, code: str
) -> None:
    error = await check_rejected(service, root, part)
    assert (error.param, error.code) == (part.param, code)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        (image_part(PHOTO, min_pixels=9000, max_pixels=8000), "min_pixels"),
        (image_part(PHOTO, fps=1.0), "fps"),
        (video_part(VIDEO, video_start=100.0), "video_start"),
        (video_part(VIDEO, video_start=0.011, video_end=0.012), "video_start"),
    ],
)
async def test_an_impossible_limit_is_rejected_at_its_own_field(
    service: MediaPreprocessor, root: Path, part: MediaPart, name: str
) -> None:
    part = dataclasses.replace(part, limit_params={name: f"messages[0].content[0].{name}"})
    error = await check_rejected(service, root, part)
    assert (error.param, error.code) == (f"messages[0].content[0].{name}", "invalid_value")


async def test_a_deleted_upload_is_not_found(service: MediaPreprocessor, root: Path) -> None:
    with pytest.raises(NotFoundError, match="it has been deleted") as caught:
        await service.prepare([MediaPart("image", LocalFile(str(root / "gone")), "p")], "t")
    assert (caught.value.param, caught.value.code) == ("p", "image_file_not_found")


async def test_too_many_parts_are_refused(service: MediaPreprocessor) -> None:
    with pytest.raises(BadRequestError, match="33 images and videos; the limit is 32") as caught:
        await service.prepare([image_part(PHOTO, f"p{number}") for number in range(33)], "t")
    assert (caught.value.param, caught.value.code) == ("p32", "request_limit_exceeded")


async def test_cancelled_request_gives_everything_back(service: MediaPreprocessor, root: Path) -> None:
    for delay_s in (0.0, 0.01, 0.05, 0.2):
        task = asyncio.create_task(service.prepare([video_part(real_video("bigbuckbunny")), image_part(PHOTO)], "t"))
        await asyncio.sleep(delay_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert service.load.shared_bytes == 0
        assert files(root) == []
    [media] = await service.prepare([image_part(PHOTO)], "t")
    media.release()


async def test_event_loop_stays_free_while_media_is_prepared(service: MediaPreprocessor) -> None:
    parts = [video_part(real_video("bikes")), image_part(encoded(Image.fromarray(skimage.data.retina()), "BMP"))]
    task = asyncio.create_task(service.prepare(parts, "t"))
    num_turns = 0
    while not task.done():
        await asyncio.sleep(0.001)
        num_turns += 1
    for media in await task:
        media.release()
    assert num_turns > 20  # hundreds on an idle machine


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
            (video_part(bytes(5001)), r"larger than 5000 bytes \(media\.max_video_bytes\)"),
            (MediaPart("video", (data_url(bytes(3001)),), "v"), r"larger than 3000 bytes \(media\.max_image_bytes\)"),
            (MediaPart("video", (data_url(bytes(2000)),) * 3, "v"), r"frames together are larger than 5000 bytes"),
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


async def test_patches_of_a_released_request_stay_readable_where_they_are_mapped(service: MediaPreprocessor) -> None:
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
        ({"max_request_tokens": 9}, r"12 tokens; the limit is 9 \(media\.max_request_tokens\)"),
        ({"max_request_pixels": 9000}, r"9408 pixels .* the limit is 9000"),
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
        for media in await service.prepare([image_part(small, f"p{n}", max_pixels=10**6 - n) for n in range(2)], "t"):
            media.release()
        assert service.load.cache.num_misses == 2
        with pytest.raises(BadRequestError, match=message):  # what is in the cache counts as well
            await service.prepare([image_part(small, f"p{n}", max_pixels=10**6 - n) for n in range(3)], "t")
        assert service.load.cache.num_misses == 2


async def test_sums_of_videos_are_checked_before_anything_is_decoded(tmp_path: Path) -> None:
    limits: list[tuple[dict[str, Any], str]] = [
        ({"max_request_frames": 7}, "8 sampled frames; the limit is 7"),
        ({"max_request_s": 3.5}, "4 seconds of video; the limit is 3.5"),
    ]
    for limit, message in limits:
        async with running(tmp_path, num_workers=1, **limit) as service:
            with pytest.raises(BadRequestError, match=message):
                await service.prepare([video_part(VIDEO, "a"), video_part(VIDEO, "b")], "t")
            assert service.load.cache.num_misses == 0
            [media] = await service.prepare([video_part(VIDEO)], "t")
            media.release()


@pytest.mark.slow
async def test_damaged_video_holds_the_memory_of_what_it_became(tmp_path: Path) -> None:
    data = bytearray(remux(real_video("bikes"), tmp_path / "video.mp4", options={"movflags": "faststart"}))
    data[len(data) // 2 :] = np.random.default_rng(0).bytes(len(data) - len(data) // 2)
    root = tmp_path / "shared"
    root.mkdir()
    async with running(root) as service:
        [media] = await service.prepare([video_part(bytes(data))], "t")
        assert "do not decode" in media.notes[0]
        assert Path(media.path).stat().st_size == service.load.shared_bytes == media.grid.num_patches * row_bytes(2)
        media.release()
