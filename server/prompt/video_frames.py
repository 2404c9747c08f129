"""Videos for models that see images only: some frames of each, evenly spaced, as images of their own. Pure."""

from dataclasses import replace

from model_executor.processor.chatml import Message
from model_executor.processor.tokenizer import MediaPlaceholder
from server.media.types import MediaPart
from server.prompt.conversation import Conversation


def with_frames(conversation: Conversation, num_frames: int) -> Conversation:
    """The conversation with every video as `num_frames` images in its place; 0: as it is."""
    if not num_frames or all(part.modality == "image" for part in conversation.media):
        return conversation
    media: list[MediaPart] = []
    turns: list[Message] = []
    for turn in conversation.turns:
        parts: list[str | MediaPlaceholder] = []
        for part in turn.parts:
            if isinstance(part, str):
                parts.append(part)
                continue
            source = conversation.media[part.index]
            frames = range(num_frames) if source.modality == "video" else (None,)
            for frame in frames:
                parts.append(MediaPlaceholder(len(media), "image"))
                media.append(replace(source, frame=None if frame is None else (frame, num_frames)))
        turns.append(replace(turn, parts=tuple(parts)))
    return replace(conversation, turns=tuple(turns), media=tuple(media))
