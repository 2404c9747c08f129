"""Segments to ids, against transformers' tokenizer on the same files."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from model_executor.processor.tokenizer import (
    MediaPlaceholder,
    Segment,
    TemplateText,
    Tokenizer,
    TokenizerFileError,
    UserText,
)

SPECIAL_IDS = {
    "<|endoftext|>": 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
    "<|object_ref_start|>": 151646,
    "<|object_ref_end|>": 151647,
    "<|box_start|>": 151648,
    "<|box_end|>": 151649,
    "<|quad_start|>": 151650,
    "<|quad_end|>": 151651,
    "<|vision_start|>": 151652,
    "<|vision_end|>": 151653,
    "<|vision_pad|>": 151654,
    "<|image_pad|>": 151655,
    "<|video_pad|>": 151656,
}
TEXTS = [
    "Hello, world!",
    "\nstarts with a line break",
    "tail \n\n",
    "你好，世界 🌍👩‍👩‍👧",
    "é e\u0301 ﷽ \x00\x7f",
    "  two",
    "12345.678",
]


@pytest.fixture(scope="module")
def oracle(tiny_checkpoint: Path) -> PreTrainedTokenizerBase:
    loaded = AutoTokenizer.from_pretrained(tiny_checkpoint)
    assert isinstance(loaded, PreTrainedTokenizerBase)
    return loaded


def test_special_tokens_have_the_released_ids(tokenizer: Tokenizer) -> None:
    for name, id_ in SPECIAL_IDS.items():
        assert tokenizer.special_id(name) == id_
        assert tokenizer.encode([TemplateText(name)], []).token_ids == [id_]
    assert tokenizer.special_id("<|nothing|>") is None


@pytest.mark.parametrize("text", TEXTS)
def test_a_prompt_in_segments_equals_the_prompt_encoded_at_once(
    tokenizer: Tokenizer, oracle: PreTrainedTokenizerBase, text: str
) -> None:
    opening, closing = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer.encode([TemplateText(opening), UserText(text), TemplateText(closing)], []).token_ids
    assert ids == oracle(opening + text + closing, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == oracle.decode(ids, skip_special_tokens=True)


@given(st.text(max_size=40))
def test_client_text_never_becomes_a_control_token(tokenizer: Tokenizer, text: str) -> None:
    for wrapped in (text, *(f"{text}{name}{text}" for name in SPECIAL_IDS)):
        assert all(id_ < 151643 for id_ in tokenizer.encode([UserText(wrapped)], []).token_ids)


def test_typed_special_tokens_survive_as_text(tokenizer: Tokenizer) -> None:
    typed = "say <|im_end|> and <|image_pad|>"
    ids = tokenizer.encode([UserText(typed)], []).token_ids
    assert tokenizer.decode(ids) == typed


def test_placeholders_are_spliced_where_the_slots_stand(tokenizer: Tokenizer) -> None:
    slots = [MediaPlaceholder(1, "video"), MediaPlaceholder(0, "image")]
    encoded = tokenizer.encode([UserText("a"), slots[0], slots[1], UserText("a")], [3, 2])
    assert encoded.token_ids == [64, 151656, 151656, 151655, 151655, 151655, 64]
    assert encoded.media_offsets == [3, 1]


@given(st.text(max_size=30))
def test_token_bytes_join_to_the_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode([UserText(text)], []).token_ids
    joined = b"".join(tokenizer.token_bytes(id_) for id_ in ids)
    assert joined.decode() == tokenizer.decode(ids)


def test_bytes_of_special_and_missing_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.token_bytes(151645) == b"<|im_end|>"
    assert tokenizer.token_bytes(tokenizer.num_tokens) == b""


@pytest.mark.parametrize("content", ["{", "[]", '{"model": {"type": "?"}}'])
def test_refuses_a_malformed_tokenizer_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerFileError, match=r"tokenizer\.json"):
        Tokenizer(tmp_path)


@pytest.mark.slow
def test_refuses_a_tokenizer_without_qwen_tokens(tmp_path: Path, tiny_checkpoint: Path) -> None:
    content = json.loads((tiny_checkpoint / "tokenizer.json").read_text())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != "<|image_pad|>"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(TokenizerFileError, match="image_pad"):
        Tokenizer(tmp_path)


SEGMENTS = st.lists(
    st.one_of(
        st.builds(UserText, st.text(max_size=12) | st.sampled_from([*TEXTS, "<|im_end|>"])),
        st.builds(TemplateText, st.sampled_from(["<|im_start|>user\n", "<|im_end|>\n", "Picture 1: ", "\n"])),
        st.builds(MediaPlaceholder, st.integers(0, 2), st.just("image")),
    ),
    max_size=8,
)


@given(segments=SEGMENTS)
def test_counts_of_segments_add_up_to_the_prompt(tokenizer: Tokenizer, segments: list[Segment]) -> None:
    counts = tokenizer.count(segments, [5, 1, 0])
    assert len(counts) == len(segments)
    assert sum(counts) == len(tokenizer.encode(segments, [5, 1, 0]).token_ids)
    for segment, count in zip(segments, counts, strict=True):
        if isinstance(segment, MediaPlaceholder):
            assert count == [5, 1, 0][segment.index]


def test_a_token_over_a_border_counts_where_it_begins(tokenizer: Tokenizer) -> None:
    segments: list[Segment] = [TemplateText("<|im_start|>user\n"), UserText("\n\nHello"), TemplateText("<|im_end|>")]
    assert len(tokenizer.encode(segments, []).token_ids) == 5  # control, user, three line breaks, Hello, control
    assert tokenizer.count(segments, []) == [3, 1, 1]
