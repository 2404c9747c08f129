"""Videos as images, for models that see nothing else."""

from model_executor.processor.chatml import Message
from model_executor.processor.tokenizer import MediaPlaceholder
from server.media.types import MediaPart
from server.prompt.conversation import Conversation
from server.prompt.video_frames import with_frames

IMAGE, VIDEO = MediaPart("image", "http://a/i", "i"), MediaPart("video", "http://a/v", "v")


def conversation(*media: MediaPart) -> Conversation:
    parts = [MediaPlaceholder(index, part.modality) for index, part in enumerate(media)]
    return Conversation((Message("user", ("Look: ", *parts, "What?")),), media)


def test_a_video_becomes_its_frames_in_its_place() -> None:
    seen = with_frames(conversation(IMAGE, VIDEO, IMAGE), 4)
    assert [(part.param, part.seen_as, part.frame) for part in seen.media] == [
        ("i", "image", None),
        *(("v", "image", (number, 4)) for number in range(4)),
        ("i", "image", None),
    ]
    assert seen.turns[0].parts == ("Look: ", *(MediaPlaceholder(index, "image") for index in range(6)), "What?")


def test_other_models_get_videos_as_they_are() -> None:
    asked = conversation(IMAGE, VIDEO)
    assert with_frames(asked, 0) is asked
