"""Turns and media become ids with exactly the placeholders the grids ask for."""

from typing import Any

import pytest

from model_executor.engine import Prompt
from model_executor.processor.chatml import Message
from model_executor.processor.geometry import Grid, Size
from model_executor.processor.tokenizer import MediaPlaceholder, Tokenizer
from server.core.errors import BadRequestError
from server.media.types import PreparedMedia
from server.prompt.builder import PlaceholderError, PromptBuilder
from server.prompt.conversation import Conversation
from server.tools.toolset import ToolFunction, Toolset

IMAGE_PAD = 151_655
VIDEO_PAD = 151_656


def medium(modality: Any, grid: Grid, name: str) -> PreparedMedia:
    return PreparedMedia(modality, grid, name * 64, f"/{name}", Size(1, 1), Size(28, 28), release=lambda: None)


MEDIA = [medium("image", Grid(1, 4, 6), "a"), medium("video", Grid(2, 2, 4), "b"), medium("image", Grid(1, 2, 2), "c")]
TURNS = [
    Message("user", ("Look: ", MediaPlaceholder(0, "image"), " and ", MediaPlaceholder(1, "video"))),
    Message("assistant", ("Seen.",)),
    Message("user", (MediaPlaceholder(2, "image"), "<|image_pad|> is no picture")),
]


def build(turns: list[Message], media: list[PreparedMedia], tokenizer: Tokenizer, **changes: Any) -> Prompt:
    templates = {"template": changes.pop("template", None), "tool_template": changes.pop("tool_template", None)}
    builder = PromptBuilder(tokenizer, max_model_len=4096, **templates)
    conversation = Conversation(tuple(turns), (), **changes)
    return builder.chat(conversation, media, cache_salt="salt", adapter="adapter")


def test_each_medium_has_its_placeholders_where_it_stands(tokenizer: Tokenizer) -> None:
    prompt = build(TURNS, MEDIA, tokenizer)
    assert (prompt.cache_salt, prompt.adapter) == ("salt", "adapter")
    assert [(item.digest[0], item.grid, item.num_tokens, item.path) for item in prompt.media] == [
        ("a", (1, 4, 6), 6, "/a"),
        ("b", (2, 2, 4), 4, "/b"),
        ("c", (1, 2, 2), 1, "/c"),
    ]
    for item in prompt.media:
        pad = IMAGE_PAD if item.modality == "image" else VIDEO_PAD
        start, end = item.offset, item.offset + item.num_tokens
        assert prompt.token_ids[start:end] == [pad] * item.num_tokens
        assert tokenizer.decode([prompt.token_ids[start - 1]], skip_special_tokens=False) == "<|vision_start|>"
        assert tokenizer.decode([prompt.token_ids[end]], skip_special_tokens=False) == "<|vision_end|>"
    assert prompt.token_ids.count(IMAGE_PAD) == 7
    assert prompt.token_ids.count(VIDEO_PAD) == 4


def test_the_flags_reach_the_rendering(tokenizer: Tokenizer) -> None:
    def text(**changes: Any) -> str:
        return tokenizer.decode(build(TURNS[:2], MEDIA[:2], tokenizer, **changes).token_ids, skip_special_tokens=False)

    assert text().endswith("<|im_start|>assistant\n")
    assert text(add_generation_prompt=False).endswith("Seen.<|im_end|>\n")
    assert text(add_generation_prompt=False, continue_final_message=True).endswith("Seen.")
    assert "Picture 1: " in text(add_vision_id=True) and "Video 1: " in text(add_vision_id=True)


def test_tools_have_a_template_of_their_own_where_the_checkpoint_has_one(tokenizer: Tokenizer) -> None:
    all_of_it = "{% for m in messages %}{{ m.content }}{% endfor %}"
    templates = {"template": f"talk {all_of_it}", "tool_template": f"use {all_of_it}"}
    turns = [Message("user", ("Hello",))]
    function = ToolFunction("f", None, None, strict=False, param="tools[0]")
    for tools, expected in ((None, "talk Hello"), (Toolset((function,), must_call=False, calls_once=False), "use ")):
        text = tokenizer.decode(build(turns, [], tokenizer, tools=tools, **templates).token_ids)
        assert text.startswith(expected)


def test_a_template_that_refuses_is_the_clients_fault(tokenizer: Tokenizer) -> None:
    with pytest.raises(BadRequestError) as caught:
        build(TURNS, MEDIA, tokenizer, template="{{ raise_exception('roles must alternate') }}")
    assert caught.value.param == "messages"
    assert "roles must alternate" in caught.value.message


def test_never_lets_placeholders_and_grids_disagree(tokenizer: Tokenizer) -> None:
    with pytest.raises(PlaceholderError):  # a control text with a placeholder of its own
        build([Message("user", (MediaPlaceholder(0, "video"),))], [MEDIA[0]], tokenizer)
