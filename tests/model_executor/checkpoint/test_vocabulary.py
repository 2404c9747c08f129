"""Tokenizers made of Qwen's list of ranks, against tiktoken."""

import shutil
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from model_executor.checkpoint.errors import CheckpointError
from model_executor.checkpoint.vocabulary import tokenizer_dir
from model_executor.families.qwen2_vl import QWEN2_VL
from model_executor.families.qwen_vl import QWEN_FORMAT, QWEN_VL
from model_executor.processor.chatml import Message, render
from model_executor.processor.rank_list import read_rank_list
from model_executor.processor.tokenizer import MediaPlaceholder, TemplateText, Tokenizer, UserText
from tests.support.qwen_vl_oracle import SPECIAL, SPLIT
from training.qwen_tokenizer import vocabulary_path

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that was made of the public list."""
    folder = tmp_path_factory.mktemp("model")
    shutil.copyfile(vocabulary_path(), folder / "qwen.tiktoken")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        directory = tokenizer_dir(folder, QWEN_VL)
        before = (directory / "tokenizer.json").stat().st_mtime_ns
        assert tokenizer_dir(folder, QWEN_VL) == directory, "the second time it is there"
        assert (directory / "tokenizer.json").stat().st_mtime_ns == before
    return directory


@pytest.fixture(scope="module")
def tokenizer(made: Path) -> Tokenizer:
    return Tokenizer(made, QWEN_FORMAT.placeholders, QWEN_FORMAT.user_tokens)


@pytest.fixture(scope="module")
def tiktokens() -> tiktoken.Encoding:
    ranks = read_rank_list(vocabulary_path())
    return tiktoken.Encoding("qwen", pat_str=SPLIT, mergeable_ranks=ranks, special_tokens=SPECIAL)


@given(st.text("abcXYZ .,'\n\t01239éß潮汐と月שלום😀<>|()", max_size=60))
def test_texts_become_the_ids_that_tiktoken_gives(
    tokenizer: Tokenizer, tiktokens: tiktoken.Encoding, text: str
) -> None:
    assert tokenizer.encode([UserText(text)], []).token_ids == tiktokens.encode(text, disallowed_special=())


def test_special_tokens_have_the_releases_ids(tokenizer: Tokenizer) -> None:
    assert {name: tokenizer.special_id(name) for name in SPECIAL} == SPECIAL
    assert tokenizer.num_tokens == 151_860


def test_a_user_may_mark_regions_and_write_no_other_special_token(tokenizer: Tokenizer) -> None:
    text = "<ref>cat</ref><box>(1,2),(3,4)</box><img></img><imgpad><|im_end|><|extra_0|>"
    ids = tokenizer.encode([UserText(text)], []).token_ids
    special = {SPECIAL[name] for name in ("<ref>", "</ref>", "<box>", "</box>")}
    assert {id_ for id_ in ids if id_ >= 151_643} == special
    assert tokenizer.decode(ids) == text


def test_regions_stay_in_answers_and_turns_do_not(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode([TemplateText("<ref>cat</ref><box>(1,2),(3,4)</box><|im_end|>")], []).token_ids
    assert tokenizer.decode(ids) == "<ref>cat</ref><box>(1,2),(3,4)</box>"


def test_a_text_is_encoded_apart_from_the_line_of_its_role(tokenizer: Tokenizer, tiktokens: tiktoken.Encoding) -> None:
    segments = render([Message("user", ("\n\nHi.",))], prompt_format=QWEN_FORMAT)
    ids = tokenizer.encode(segments, []).token_ids
    lines = [SPECIAL["<|im_start|>"], *tiktokens.encode("user\n"), *tiktokens.encode("\n\nHi."), SPECIAL["<|im_end|>"]]
    assert any(ids[start : start + len(lines)] == lines for start in range(len(ids)))


def test_images_are_numbered_through_the_conversation(tokenizer: Tokenizer) -> None:
    image = [MediaPlaceholder(number, "image") for number in range(2)]
    turns = [
        Message("user", (image[0], "What?")),
        Message("assistant", ("A cat.",)),
        Message("user", ("And", image[1])),
    ]
    encoded = tokenizer.encode(render(turns, prompt_format=QWEN_FORMAT), [256, 256])
    text = tokenizer.decode(encoded.token_ids, skip_special_tokens=False)
    pads = "<imgpad>" * 256
    assert f"<|im_start|>user\nPicture 1: <img>{pads}</img>\nWhat?<|im_end|>\n" in text
    assert f"<|im_start|>user\nAndPicture 2: <img>{pads}</img>\n<|im_end|>\n" in text
    assert text.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n")


def test_a_list_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "qwen.tiktoken").write_text("IQ== zero\n")
    with pytest.raises(CheckpointError, match=r"qwen\.tiktoken of the model is not a list of ranks"):
        tokenizer_dir(tmp_path, QWEN_VL)


@pytest.mark.parametrize(
    ("family", "says"), [(QWEN_VL, r"neither tokenizer\.json nor qwen\.tiktoken"), (QWEN2_VL, r"no tokenizer\.json")]
)
def test_a_folder_without_either_is_refused(tmp_path: Path, family: object, says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        tokenizer_dir(tmp_path, family)  # type: ignore[arg-type]
