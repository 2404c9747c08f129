"""Samples as arrays: the same prompt the server would make, and branches that equal separate conversations."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from model_executor.processor.chatml import render
from model_executor.processor.geometry import Grid
from model_executor.processor.tokenizer import TemplateText, Tokenizer, UserText
from training.batch import Batch, arrays, layout, view
from training.data import draw_sample
from training.encode import EncodedSample, encode, prepare
from training.feed import draw_batch
from training.labels import SYMBOL_LABELS, UNTOLD, token_labels
from training.model import Model
from training.pack import Packer, collate, room_for
from training.recipe import QUICK, UNDERSTAND, Capacity
from training.sample import Exchange, Media, Region, Sample

pytestmark = pytest.mark.slow

SIZE = Capacity(bins=12, bin_tokens=512, windows=40, window_patches=256, bin_queries=400, answers=4000, media=60)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [draw_sample(UNDERSTAND, str(seed)) for seed in range(24)]


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    model = Model(QUICK.shape)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


def _encoded(sample: Sample, tokenizer: Tokenizer) -> EncodedSample:
    return encode(sample, tokenizer, QUICK.limits)


def test_a_prompt_is_what_the_server_renders(samples: list[Sample], tokenizer: Tokenizer) -> None:
    for sample in samples:
        exchange = sample.exchanges[0]
        encoded = _encoded(Sample(sample.media, (exchange,)), tokenizer)
        counts = [item.grid.num_tokens for item in encoded.items]
        prompt = tokenizer.encode(render(exchange.messages), counts)
        (answer,) = encoded.answers
        assert encoded.token_ids[: len(prompt.token_ids)].tolist() == prompt.token_ids
        assert [item.offset for item in encoded.items] == prompt.media_offsets
        assert answer.index[0] == len(prompt.token_ids) - 1
        assert tokenizer.decode(answer.ids.tolist(), skip_special_tokens=False) == exchange.answer + "<|im_end|>"


def test_learned_tokens_are_those_of_the_answers_only(samples: list[Sample], tokenizer: Tokenizer) -> None:
    for sample in samples:
        encoded = _encoded(sample, tokenizer)
        for answer in encoded.answers:
            assert encoded.token_ids[answer.index[1:]].tolist() == answer.ids[:-1].tolist()


@torch.no_grad()
def test_packed_branches_equal_separate_conversations(
    samples: list[Sample], tokenizer: Tokenizer, model: Model
) -> None:
    chosen = [sample for sample in samples if len(_encoded(sample, tokenizer).token_ids) <= 300][:8]
    batch, notes = collate([_encoded(sample, tokenizer) for sample in chosen], SIZE)
    together = model(batch)[: len(notes.exchanges)]
    apart = [
        model(collate([one], room_for([one]))[0])
        for sample in chosen
        for exchange in sample.exchanges
        for one in [_encoded(Sample(sample.media, (exchange,)), tokenizer)]
    ]
    torch.testing.assert_close(together, torch.cat(apart), rtol=0, atol=2e-4)


def test_a_batch_lies_in_one_block_that_is_written_over(samples: list[Sample], tokenizer: Tokenizer) -> None:
    block = np.full(layout(SIZE)[1], 7, np.uint8)
    packer = Packer(block, SIZE)
    encoded = [_encoded(sample, tokenizer) for sample in samples[:6]]
    assert all(packer.add(one) for one in encoded)
    notes = packer.finish()
    mine, fresh = view(torch.from_numpy(block), SIZE), collate(encoded, SIZE)[0]
    for field in fields(Batch):
        if field.name != "rows":
            assert torch.equal(getattr(mine, field.name), getattr(fresh, field.name)), field.name
    assert torch.equal(
        mine.rows[mine.visible.repeat_interleave(4) > 0], fresh.rows[fresh.visible.repeat_interleave(4) > 0]
    )
    assert notes.num_samples == 6 and len(notes.exchanges) == sum(len(a.ids) for one in encoded for a in one.answers)
    assert arrays(block, SIZE)["answer_weights"].sum() == pytest.approx(1)


def test_a_sample_without_room_changes_nothing(samples: list[Sample], tokenizer: Tokenizer) -> None:
    size = Capacity(bins=1, bin_tokens=512, windows=2, window_patches=256, bin_queries=8, answers=400, media=2)
    block = np.zeros(layout(size)[1], np.uint8)
    packer = Packer(block, size)
    encoded = [_encoded(sample, tokenizer) for sample in samples]
    added = [packer.add(one) for one in encoded]
    assert any(added) and not all(added)
    only = collate([one for one, taken in zip(encoded, added, strict=True) if taken], size)[0]
    assert torch.equal(view(torch.from_numpy(block), size).token_ids, only.token_ids)


def test_a_batch_is_drawn_by_its_step_alone(tokenizer: Tokenizer) -> None:
    blocks = [np.zeros(layout(QUICK.stages[2].batch)[1], np.uint8) for _ in range(3)]
    first = sum(stage.steps for stage in QUICK.stages[:2])
    for block, step in zip(blocks, (first, first, first + 1), strict=True):
        draw_batch(QUICK, step, tokenizer, block)
    assert np.array_equal(blocks[0], blocks[1]) and not np.array_equal(blocks[0], blocks[2])


def test_media_are_sized_as_the_server_sizes_them() -> None:
    rows, grid = prepare(Media("image", (np.zeros((500, 900, 3), np.uint8),)), QUICK.limits)
    assert 49 <= grid.num_tokens <= 64 and rows.shape == (grid.num_patches, 1176)
    rows, grid = prepare(Media("video", (np.zeros((60, 60, 3), np.uint8),) * 6), QUICK.limits)
    assert grid == Grid(3, 8, 8) and rows.shape == (192, 1176)


def test_shared_media_must_come_first(tokenizer: Tokenizer) -> None:
    drawn = (draw_sample(UNDERSTAND, str(seed)) for seed in range(100))
    sample = next(sample for sample in drawn if len(sample.exchanges) > 1 and sample.media)
    turned = tuple(
        Exchange((type(m)(m.role, m.parts[::-1]),), exchange.asked)
        for exchange in sample.exchanges
        for m in exchange.messages[-1:]
    )
    with pytest.raises(ValueError, match="begin with"):
        encode(Sample(sample.media, turned), tokenizer, QUICK.limits)


def test_the_tokenizer_spells_what_is_read(tokenizer: Tokenizer) -> None:
    capitals = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for text in ("QUARTZ", "JSON", *(first + second for first in capitals for second in capitals)):
        assert len(tokenizer.encode([UserText(text)], []).token_ids) == len(text)
    assert len(tokenizer.encode([UserText("4071")], []).token_ids) == 4
    for letter in capitals + capitals.lower():
        assert len(tokenizer.encode([TemplateText(letter)], []).token_ids) == 1
    assert tokenizer.num_tokens <= QUICK.shape.vocab_size


def test_a_token_is_named_after_what_covers_most_of_it() -> None:
    regions = (Region(2, 2, 26, 26, "red", "circle"), Region(60, 30, 83, 83, None, "7"))
    item = Media("image", (np.zeros((84, 84, 3), np.uint8),), regions)
    labels = token_labels(item, Grid(1, 6, 6))
    colors, symbols = labels.names.reshape(2, 3, 3)
    seven = 1 + SYMBOL_LABELS.index("7")
    assert symbols.tolist() == [[1, 0, 0], [0, 0, seven], [0, 0, seven]]
    assert colors.tolist() == [[1, 0, 0], [0, 0, UNTOLD], [0, 0, UNTOLD]]
    boxes = labels.boxes.reshape(4, 3, 3) * 28  # left, top, right, bottom from the token's center, in pixels
    assert boxes[:, 0, 0].tolist() == pytest.approx([-12, -12, 12, 12], abs=1e-4)
    assert boxes[:, 2, 2].tolist() == pytest.approx([60 - 70, 30 - 70, 83 - 70, 83 - 70], abs=1e-4)
    assert not boxes[:, symbols == 0].any()
    silent = Media("image", item.frames)
    assert (token_labels(silent, Grid(1, 6, 6)).names == UNTOLD).all()


def test_small_things_are_told_even_where_four_tokens_share_them() -> None:
    item = Media("image", (np.zeros((84, 84, 3), np.uint8),), (Region(23, 23, 33, 33, "red", "circle"),))
    assert (token_labels(item, Grid(1, 6, 6)).owners >= 0).sum() == 4


def test_an_items_end_and_size_are_told(samples: list[Sample], tokenizer: Tokenizer) -> None:
    end = tokenizer.special_id("<|vision_end|>")
    encoded = [one for one in (_encoded(sample, tokenizer) for sample in samples) if len(one.token_ids) <= 300]
    batch, _ = collate(encoded, SIZE)
    known = batch.sizes[0] != UNTOLD
    assert set(batch.token_ids.flatten()[batch.ends[known]].tolist()) == {end}
    sides = sorted((item.grid.h // 2, item.grid.w // 2) for one in encoded for item in one.items)
    assert sorted(map(tuple, batch.sizes[:, known].T.tolist())) == sides


def test_pointers_stand_before_what_they_point_at(tokenizer: Tokenizer) -> None:
    """A query is a token of an answer; the tokens it points at lie in the box that it is to tell."""
    pointed = 0
    for seed in range(60):
        sample = draw_sample(UNDERSTAND, f"pointers {seed}")
        encoded = _encoded(sample, tokenizer)
        batch, _ = collate([encoded], room_for([encoded]))
        answers = {int(index) for answer in encoded.answers for index in answer.index}
        real = batch.visible > 0
        places = dict(zip(batch.placeholders[real].tolist(), batch.places.T[real], strict=True))
        for query in range(int(batch.query_weights.sum())):
            assert int(batch.queries[0, query]) in answers
            mine = batch.media[0] == batch.query_media[0, query]
            shown = torch.nonzero((batch.owners[0] == batch.query_owners[0, query]) & mine)[:, 0].tolist()
            grid = encoded.items[int(batch.query_media[0, query]) - 1].grid
            left, top, right, bottom = batch.query_shares[0, query].tolist()
            assert shown
            for token in shown:
                _, row, column = places[token].tolist()
                assert left * grid.w / 2 - 1 <= column <= right * grid.w / 2
                assert top * grid.h / 2 - 1 <= row <= bottom * grid.h / 2
            pointed += 1
    assert pointed > 300


def test_targets_are_named_by_the_words_that_follow(tokenizer: Tokenizer) -> None:
    seen = set()
    for seed in range(150):
        sample = draw_sample(UNDERSTAND, f"named {seed}")
        encoded = _encoded(sample, tokenizer)
        for exchange, answer in zip(sample.exchanges, encoded.answers, strict=True):
            mine = [(at - int(answer.index[0]), t) for at, t in encoded.pointers if at in answer.index]
            if exchange.task not in ("caption", "color", "shape", "order", "word", "number", "grounding"):
                continue
            for at, (item, region) in mine:
                found = sample.media[item].regions
                assert found is not None
                rest = tokenizer.decode(answer.ids[at:].tolist()).lower()
                told = {"shape": found[region].symbol, "word": found[region].symbol, "number": found[region].symbol}
                word = told.get(exchange.task, found[region].color or "")
                if exchange.task in ("caption", "order"):
                    rest = rest.split(",")[0]
                    assert found[region].symbol in rest
                if exchange.task != "grounding":
                    assert word.lower() in rest, (exchange.asked, rest, word)
                seen.add(exchange.task)
    assert {"caption", "color", "shape", "order", "number", "grounding"} <= seen
