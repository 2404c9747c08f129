"""Messages to turns and media, in order and in place."""

import base64
from typing import Any

import pytest

from model_executor.processor.chatml import Message
from model_executor.processor.tokenizer import MediaPlaceholder
from server.chat.request import ChatCompletionRequest
from server.core.errors import BadRequestError
from server.media.types import LocalFile, MediaLimits, MediaPart
from server.prompt.conversation import Conversation, read_conversation
from server.prompt.messages import StoredFile
from tests.support.images import encoded, plain
from tests.support.videos import encode, numbered

URL = "data:image/png;base64,AA=="


FILES = {"file-p": StoredFile("file-p", "/files/p", "image"), "file-v": StoredFile("file-v", "/files/v", "video")}


def read(*messages: dict[str, Any]) -> Conversation:
    body = {"model": "m", "messages": list(messages)}
    request = ChatCompletionRequest.model_validate(body, context={"find_file": FILES.get})
    return read_conversation(request.messages)


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def test_developer_is_another_name_for_system() -> None:
    turns = read(
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hi.", "name": "ann"},
        {"role": "assistant", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": "!"}]},
    ).turns
    assert turns == (
        Message("system", ("Be brief.",)),
        Message("user", ("Hi.",)),
        Message("assistant", ("Hello", "!")),
    )


def test_media_are_numbered_over_all_turns_and_stay_in_place() -> None:
    conversation = read(
        user({"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u0"}}),
        {"role": "assistant", "content": [{"type": "image", "image": "u1"}, {"type": "text", "text": "b"}]},
        user({"type": "video_url", "video_url": {"url": "u2"}}, {"type": "video", "video": ["u3", "u4"], "fps": 1}),
    )
    assert conversation.turns == (
        Message("user", ("a", MediaPlaceholder(0, "image"))),
        Message("assistant", (MediaPlaceholder(1, "image"), "b")),
        Message("user", (MediaPlaceholder(2, "video"), MediaPlaceholder(3, "video"))),
    )
    assert conversation.media == (
        MediaPart("image", "u0", "messages[0].content[1].image_url"),
        MediaPart("image", "u1", "messages[1].content[0].image"),
        MediaPart("video", "u2", "messages[2].content[0].video_url"),
        MediaPart(
            "video",
            ("u3", "u4"),
            "messages[2].content[1].video",
            MediaLimits(fps=1.0),
            {"fps": "messages[2].content[1].fps"},
        ),
    )


IMAGE_LIMITS = {"min_pixels": 784, "max_pixels": 7840, "resized_height": 56, "resized_width": 84}
VIDEO_LIMITS = {
    "min_pixels": 784,
    "max_pixels": 7840,
    "total_pixels": 78400,
    "fps": 0.5,
    "min_frames": 4,
    "max_frames": 8,
    "video_start": 1.5,
    "video_end": 3,
}


@pytest.mark.parametrize("nested", [True, False])
def test_limits_may_stand_beside_the_url_or_inside_its_object(nested: bool) -> None:
    def part(kind: str, limits: dict[str, Any]) -> dict[str, Any]:
        inside, beside = (limits, {}) if nested else ({}, limits)
        return {"type": kind, kind: {"url": URL, **inside}, **beside}

    image, video = read(user(part("image_url", IMAGE_LIMITS), part("video_url", VIDEO_LIMITS))).media
    where = {"image_url": "messages[0].content[0]", "video_url": "messages[0].content[1]"}
    for media, kind, limits in ((image, "image_url", IMAGE_LIMITS), (video, "video_url", VIDEO_LIMITS)):
        prefix = f"{where[kind]}.{kind}" if nested else where[kind]
        assert media.limit_params == {name: f"{prefix}.{name}" for name in limits}
    assert image.limits == MediaLimits(min_pixels=784, max_pixels=7840, resized_height=56, resized_width=84)
    assert video.limits == MediaLimits(
        min_pixels=784,
        max_pixels=7840,
        total_pixels=78400,
        fps=0.5,
        min_frames=4,
        max_frames=8,
        video_start=1.5,
        video_end=3,
    )


def test_refuses_a_limit_given_twice() -> None:
    with pytest.raises(BadRequestError) as caught:
        read(user({"type": "video_url", "video_url": {"url": URL, "fps": 1}, "fps": 1}))
    assert caught.value.param == "messages[0].content[0].fps"


@pytest.mark.parametrize(
    ("detail", "asked", "expected"),
    [("low", None, 64 * 784), ("low", 784, 784), ("low", 10**6, 64 * 784), ("high", None, None), ("auto", 999, 999)],
)
def test_low_detail_caps_a_picture_at_64_tokens(detail: str, asked: int | None, expected: int | None) -> None:
    part = {"type": "image_url", "image_url": {"url": URL, "detail": detail}, "max_pixels": asked}
    assert read(user(part)).media[0].limits.max_pixels == expected


def test_detail_holds_for_both_shapes_of_a_picture() -> None:
    assert read(user({"type": "image", "image": URL, "detail": "low"})).media[0].limits.max_pixels == 64 * 784


def file_data(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def test_files_are_pictures_or_clips_by_what_is_in_them() -> None:
    png = file_data(encoded(plain(64, 64)), "video/mp4")
    mp4 = file_data(encode(numbered(10)), "image/png")
    conversation = read(
        user(
            {"type": "file", "file": {"file_id": "file-p", "filename": "x.mp4"}},
            {"type": "file", "file": {"file_id": "file-v", "fps": 1.0}},
            {"type": "file", "file": {"file_data": png, "filename": "x.mp4"}, "max_pixels": 784},
            {"type": "file", "file": {"file_data": mp4}},
        )
    )
    assert conversation.media == (
        MediaPart("image", LocalFile("/files/p"), "messages[0].content[0].file"),
        MediaPart(
            "video",
            LocalFile("/files/v"),
            "messages[0].content[1].file",
            MediaLimits(fps=1.0),
            {"fps": "messages[0].content[1].file.fps"},
        ),
        MediaPart(
            "image",
            png,
            "messages[0].content[2].file",
            MediaLimits(max_pixels=784),
            {"max_pixels": "messages[0].content[2].max_pixels"},
        ),
        MediaPart("video", mp4, "messages[0].content[3].file"),
    )
    assert [part.modality for part in conversation.turns[0].parts if isinstance(part, MediaPlaceholder)] == [
        "image", "video", "image", "video",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "url",
    [
        "data:",
        "data:,hello",
        "data:image/png;base64,",
        "data:image/png;base64,!!!!",
        file_data(b"%PDF-1.7", "image/png"),
    ],
)
def test_refuses_a_file_that_is_neither(url: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        read(user({"type": "file", "file": {"file_data": url}}))
    assert caught.value.param == "messages[0].content[0].file.file_data"
    assert caught.value.code == "unsupported_file"
