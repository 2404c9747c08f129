"""Samples as arrays: the same prompt the server would make, and branches that equal separate conversations."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model_executor.processor.chatml import render
from model_executor.processor.geometry import Grid
from model_executor.processor.tokenizer import TemplateText, Tokenizer
from training.batch import SYMBOL_LABELS, UNTOLD, Encoded, collate, encode, patch_positions, prepare, token_labels
from training.data import draw_sample
from training.model import Model
from training.recipe import QUICK, UNDERSTAND
from training.sample import Asked, Medium, Region, Sample, converse


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [draw_sample(UNDERSTAND, str(seed)) for seed in range(24)]


def _encoded(sample: Sample, tokenizer: Tokenizer) -> Encoded:
    return encode(sample, tokenizer, QUICK.limits)


def test_a_prompt_is_what_the_server_renders(samples: list[Sample], tokenizer: Tokenizer) -> None:
    for sample in samples:
        exchange = sample.exchanges[0]
        encoded = _encoded(Sample(sample.media, (exchange,)), tokenizer)
        counts = [grid.num_tokens for grid in encoded.grids]
        prompt = tokenizer.encode(render(exchange.messages), counts)
        _, index, answer = encoded.answers[0]
        assert encoded.token_ids[: len(prompt.token_ids)].tolist() == prompt.token_ids
        assert index[0] == len(prompt.token_ids) - 1
        assert tokenizer.decode(answer.tolist(), skip_special_tokens=False) == exchange.answer + "<|im_end|>"


def test_learnt_tokens_are_those_of_the_answers_only(samples: list[Sample], tokenizer: Tokenizer) -> None:
    for sample in samples:
        encoded = _encoded(sample, tokenizer)
        for _, index, answer in encoded.answers:
            assert encoded.token_ids[index[1:]].tolist() == answer[:-1].tolist()


def test_branches_equal_separate_conversations(samples: list[Sample], tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    model = Model(QUICK.shape)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
        for sample in samples[:8]:
            together = model(collate([_encoded(sample, tokenizer)]))
            apart = [
                model(collate([_encoded(Sample(sample.media, (exchange,)), tokenizer)]))
                for exchange in sample.exchanges
            ]
            torch.testing.assert_close(together, torch.cat(apart), rtol=0, atol=1e-4)


def test_a_batch_gives_each_sample_what_it_gets_alone(samples: list[Sample], tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    model = Model(QUICK.shape)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
        encoded = sorted((_encoded(sample, tokenizer) for sample in samples), key=lambda one: len(one.token_ids))
        together = model(collate(encoded))
        torch.testing.assert_close(together, torch.cat([model(collate([one])) for one in encoded]), rtol=0, atol=1e-4)


def test_patch_positions_follow_the_order_of_rows() -> None:
    assert patch_positions(Grid(1, 2, 4)).tolist() == [[0, 0, 1, 1, 0, 0, 1, 1], [0, 1, 0, 1, 2, 3, 2, 3]]
    assert patch_positions(Grid(2, 2, 2)).shape == (2, 8)


def test_media_are_sized_as_the_server_sizes_them() -> None:
    rows, grid = prepare(Medium("image", (np.zeros((500, 900, 3), np.uint8),)), QUICK.limits)
    assert grid.num_tokens <= 64 and rows.shape == (grid.num_patches, 588)
    rows, grid = prepare(Medium("video", (np.zeros((60, 60, 3), np.uint8),) * 6), QUICK.limits)
    assert grid == Grid(3, 6, 6) and rows.shape == (108, 1176)


def test_shared_media_must_come_first(tokenizer: Tokenizer) -> None:
    sample = next(
        sample
        for sample in (draw_sample(UNDERSTAND, str(seed)) for seed in range(100))
        if len(sample.exchanges) > 1 and sample.media
    )
    turned = tuple(
        type(exchange)(exchange.task, (type(m)(m.role, m.parts[::-1]),), exchange.answer)
        for exchange in sample.exchanges
        for m in exchange.messages[-1:]
    )
    with pytest.raises(ValueError, match="begin with"):
        encode(Sample(sample.media, turned), tokenizer, QUICK.limits)


def test_the_tokenizer_spells_what_is_read(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from model_executor.processor.tokenizer import UserText

    capitals = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for text in ("QUARTZ", "JSON", *(first + second for first in capitals for second in capitals)):
        assert len(tokenizer.encode([UserText(text)], []).token_ids) == len(text)
    assert len(tokenizer.encode([UserText("4071")], []).token_ids) == 4
    assert tokenizer.num_tokens <= QUICK.shape.vocab_size


def test_a_token_is_named_after_what_covers_most_of_it() -> None:
    regions = (Region(2, 2, 26, 26, "red", "circle"), Region(60, 30, 83, 83, None, "7"))
    medium = Medium("image", (np.zeros((84, 84, 3), np.uint8),), regions)
    labels = token_labels(medium, Grid(1, 6, 6))
    colors, symbols = labels.names.reshape(2, 3, 3)
    seven = 1 + SYMBOL_LABELS.index("7")
    assert symbols.tolist() == [[1, 0, 0], [0, 0, seven], [0, 0, seven]]
    assert colors.tolist() == [[1, 0, 0], [0, 0, UNTOLD], [0, 0, UNTOLD]]
    boxes = labels.boxes.reshape(4, 3, 3) * 28  # left, top, right, bottom from the token's center, in pixels
    assert boxes[:, 0, 0].tolist() == pytest.approx([-12, -12, 12, 12], abs=1e-4)
    assert boxes[:, 2, 2].tolist() == pytest.approx([60 - 70, 30 - 70, 83 - 70, 83 - 70], abs=1e-4)
    assert not boxes[:, symbols == 0].any()
    silent = Medium("image", medium.frames)
    assert (token_labels(silent, Grid(1, 6, 6)).names == UNTOLD).all()


def test_a_mediums_end_and_size_are_told(samples: list[Sample], tokenizer: Tokenizer) -> None:
    end = tokenizer.special_id("<|vision_end|>")
    encoded = [_encoded(sample, tokenizer) for sample in samples]
    batch = collate(encoded)
    assert len(batch.ends) == batch.sizes.shape[1] == sum(len(sample.media) for sample in samples)
    assert (batch.token_ids[batch.ends] == end).all()
    sides = sorted((grid.h // 2, grid.w // 2) for one in encoded for grid in one.grids)
    assert sorted(map(tuple, batch.sizes.T.tolist())) == sides


def test_pointers_stand_before_what_they_point_at(tokenizer: Tokenizer) -> None:
    seen = set()
    for seed in range(200):
        sample = draw_sample(UNDERSTAND, f"pointers {seed}")
        encoded = _encoded(sample, tokenizer)
        batch = collate([encoded])
        said = {
            int(index): tokenizer.decode([token])
            for _, at, ids in encoded.answers
            for index, token in zip(at, ids, strict=True)
        }
        pointed = [index for index, _ in encoded.pointers]
        assert len(pointed) == sum(
            len(at) if exchange.task == "grounding" else len(exchange.targets)
            for exchange, (_, at, _) in zip(sample.exchanges, encoded.answers, strict=True)
        )
        assert set(batch.pointing.tolist()) <= set(pointed)
        assert batch.pointed.any(axis=1).all() and not (batch.pointed & (batch.candidates < 0)).any()
        for exchange, (_, at, _) in zip(sample.exchanges, encoded.answers, strict=True):
            mine = [index for index in pointed if at[0] <= index <= at[-1]]
            if exchange.task in ("word", "number"):
                assert "".join(said[index] for index in mine) == exchange.answer
            elif exchange.task in ("caption", "one of several"):
                assert [said[index].strip() for index in mine] == ["A", *["a"] * (len(mine) - 1)]
            elif exchange.task == "grounding":
                assert mine == at.tolist()
            elif exchange.targets:  # at the start of the answer, and after each comma between the things it names
                assert mine[0] == at[0] and [said[index - 1] for index in mine[1:]] == [","] * (len(mine) - 1)
            seen.add(exchange.task)
    assert {"caption", "one of several", "word", "grounding", "color"} <= seen


def test_a_clips_pointer_meets_the_slice_its_region_shows_in(tokenizer: Tokenizer) -> None:
    regions = tuple(Region(0, 0, 28, 28, "red", "circle", slice=index) for index in (1, 2))
    medium = Medium("video", (np.zeros((56, 84, 3), np.uint8),) * 6, regions)
    asked = [Asked("second", "?", "1", ((0, 0),))]
    batch = collate([_encoded(converse((medium,), asked, system=None, media_first=True), tokenizer)])
    owners = batch.labels.owners.reshape(3, -1)
    assert [set(row.tolist()) for row in owners] == [{-1}, {-1, 0}, {-1, 1}]
    assert (batch.pointed.reshape(3, -1) == (owners == 0)).all()
    assert (batch.places[:, batch.pointed[0]][0] == 1).all()


def test_a_pointer_meets_the_tokens_its_region_covers(tokenizer: Tokenizer) -> None:
    regions = (Region(0, 0, 28, 28, "red", "circle"), Region(56, 28, 84, 84, "blue", "square"))
    medium = Medium("image", (np.zeros((84, 84, 3), np.uint8),), regions)
    exchange = converse((medium,), [Asked("shape", "?", "square", ((0, 1),))], system=None, media_first=True)
    batch = collate([_encoded(exchange, tokenizer)])
    assert batch.pointed.reshape(3, 3).tolist() == [[False] * 3, [False, False, True], [False, False, True]]
    assert batch.candidates.tolist() == [list(range(9))]
    assert batch.token_ids[batch.pointing].tolist() == tokenizer.encode([TemplateText("\n")], []).token_ids
