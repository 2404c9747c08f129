"""What decoding is expected to cost, which decides who waits for whom."""

import pytest

from server.media.messages import Prepared
from server.media.types import MediaPart
from server.media.workers.decode_jobs import _decoding_s
from server.media.workers.queue import LARGE_JOB_S


@pytest.mark.parametrize(
    ("part", "source_size", "num_source_frames", "is_large"),
    [
        (MediaPart("image", "x", "p"), (3000, 4000), 1, False),
        (MediaPart("image", "x", "p"), (10_000, 10_000), 1, True),
        (MediaPart("video", "x", "p"), (240, 320), 250, False),
        (MediaPart("video", "x", "p"), (1080, 1920), 3600 * 30, True),
        (MediaPart("video", ("x",) * 8, "p"), (480, 640), 8, False),
        (MediaPart("video", ("x",) * 100, "p"), (1080, 1920), 100, True),
    ],
)
def test_only_much_work_is_kept_off_the_worker_for_small_jobs(
    part: MediaPart, source_size: tuple[int, int], num_source_frames: int, *, is_large: bool
) -> None:
    announced = Prepared(grid=(1, 2, 2), source_size=source_size, size=(28, 28), num_source_frames=num_source_frames)
    assert (_decoding_s(part, announced) >= LARGE_JOB_S) is is_large
