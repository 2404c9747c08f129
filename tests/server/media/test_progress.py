"""What somebody who waits for media is told."""

from server.media.progress import FrameCount, Progress


def test_nothing_is_told_before_the_first_count_and_after_the_end() -> None:
    progress = Progress()
    assert progress.text() is None
    progress.begin(2)
    assert progress.text() is None
    progress.follow(0, FrameCount(1, 4))
    assert progress.text() is not None
    progress.end()
    assert progress.text() is None


def test_every_part_weighs_the_same_and_the_count_is_followed() -> None:
    progress, video, image = Progress(), FrameCount(), FrameCount()
    progress.begin(2)
    progress.follow(0, video)
    progress.follow(1, image)
    video.num_total = 50
    assert progress.text() == "preparing media 0 %"
    video.num_done = 37
    assert progress.text() == "preparing media 37 %"
    image.finish()
    assert progress.text() == "preparing media 87 %"
    video.finish()
    assert (video.num_done, video.num_total) == (50, 50)
    assert progress.text() == "preparing media 100 %"


def test_a_request_without_media_tells_nothing() -> None:
    progress = Progress()
    progress.begin(0)
    assert progress.text() is None
