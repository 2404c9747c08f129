"""Texts far beyond the context are refused without being encoded; all others are left alone."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_executor.processor.tokenizer import MediaPlaceholder, Segment, TemplateText, Tokenizer, UserText
from server.core.errors import BadRequestError
from server.prompt.context_length import check_context_length, require_fit
from tests.support.error_body import check_error
from tests.support.world import ServerFixture

CONTEXT = 100


def hopeless(segments: list[Segment], tokenizer: Tokenizer, max_model_len: int) -> bool:
    try:
        check_context_length(segments, [5] * len(segments), tokenizer, max_model_len)
    except BadRequestError as error:
        assert (error.param, error.code) == ("messages", "context_length_exceeded")
        assert "at least" in error.message
        return True
    return False


@pytest.mark.parametrize("text", ["word ", "x", " ", "你好", "🦊", "e\u0301"])
def test_a_huge_text_is_refused_in_a_moment(tokenizer: Tokenizer, text: str) -> None:
    started_s = time.process_time()
    assert hopeless([UserText(text * (20_000_000 // len(text)))], tokenizer, 32_768)
    assert time.process_time() - started_s < 5  # encoding all of it takes a minute


@given(
    piece=st.text(min_size=1, max_size=8),
    repeats=st.integers(1, 4000),
    num_slots=st.integers(0, 3),
    max_model_len=st.sampled_from([10, 100, 500]),
)
def test_what_fits_is_never_refused(
    tokenizer: Tokenizer, piece: str, repeats: int, num_slots: int, max_model_len: int
) -> None:
    segments: list[Segment] = [
        TemplateText("<|im_start|>user\n"),
        *[MediaPlaceholder(i, "image") for i in range(num_slots)],
    ]
    segments.append(UserText(piece * repeats))
    if hopeless(segments, tokenizer, max_model_len):
        assert len(tokenizer.encode(segments, [5] * len(segments)).token_ids) >= max_model_len


def test_longest_tokens_still_fit(tokenizer: Tokenizer) -> None:
    spaces = " " * tokenizer.max_token_bytes
    segments: list[Segment] = [UserText(spaces * 90)]
    assert len(tokenizer.encode(segments, []).token_ids) <= 90
    assert not hopeless(segments, tokenizer, CONTEXT)


def test_the_numbers_are_told() -> None:
    require_fit(99, None, CONTEXT)
    require_fit(50, 50, CONTEXT)
    with pytest.raises(BadRequestError, match=r"length is 100 tokens, and the prompt is too long: 51 .* 50 for"):
        require_fit(51, 50, CONTEXT)


async def test_a_text_far_too_long_is_refused_with_the_answer_that_is_requested(world: ServerFixture) -> None:
    long = "Hello, world! " * 40_000
    for answer in (
        await world.ask(messages=[{"role": "user", "content": long}], max_tokens=200),
        await world.respond(input=long, max_output_tokens=200),
    ):
        message = check_error(
            answer, 400, param="messages" if "/chat/" in str(answer.url) else "input", code="context_length_exceeded"
        )
        assert message.startswith("This model's maximum context length is 4096 tokens, and the prompt is too long: ")
        assert message.endswith(
            " tokens in the messages and 200 for the completion. "
            "Please reduce the length of the messages or completion."
        )
