"""What is exported: a checkpoint that transformers and this server read, with the same answers."""

import hashlib
from pathlib import Path
from shutil import copy

import pytest
import torch

from model_executor.checkpoint.config import read_checkpoint
from model_executor.checkpoint.processor_files import CLIP_MEAN, CLIP_STD
from model_executor.processor.chatml import render
from model_executor.processor.tokenizer import TemplateText, Tokenizer
from training.checkpoint_files import CHAT_TEMPLATE, write_checkpoint
from training.data import draw_sample
from training.encode import encode
from training.export import HASHES, write_hashes
from training.loop import Run
from training.model_card import card
from training.pack import collate, room_for
from training.recipe import QUICK, UNDERSTAND
from training.sample import Sample


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> tuple[Run, Path]:
    folder = tmp_path_factory.mktemp("run")
    copy(tokenizer_folder / "tokenizer.json", folder)
    run = Run(QUICK, folder)
    with torch.no_grad():
        for weight in run.model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    write_checkpoint(run.model, QUICK, folder, folder / "bundle")
    return run, folder / "bundle"


@pytest.mark.slow
def test_transformers_gives_the_same_logits(exported: tuple[Run, Path]) -> None:
    from transformers import Qwen2VLForConditionalGeneration

    run, folder = exported
    theirs = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    tokenizer = Tokenizer(folder)
    for seed in range(14):
        sample = draw_sample(UNDERSTAND, f"parity {seed}")
        encoded = encode(Sample(sample.media, sample.exchanges[:1]), tokenizer, QUICK.limits)
        inputs = {}
        for kind, name in (("pixel_values", "image"), ("pixel_values_videos", "video")):
            items = [item for item, media in zip(encoded.items, sample.media, strict=True) if media.modality == name]
            if items:
                inputs[kind] = torch.cat([_normalized(torch.from_numpy(item.rows)) for item in items])
                inputs[f"{name}_grid_thw"] = torch.tensor([[item.grid.t, item.grid.h, item.grid.w] for item in items])
        ids = torch.from_numpy(encoded.token_ids)[None]
        with torch.no_grad():
            logits = theirs(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                position_ids=torch.from_numpy(encoded.positions)[:, None],
                **inputs,
            ).logits[0]
            mine = run.model(collate([encoded], room_for([encoded]))[0])
        torch.testing.assert_close(mine, logits[encoded.answers[0].index], rtol=0, atol=2e-4)


def _normalized(rows: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return ((rows.float().view(len(rows), 3, 2, 196) / 255 - mean) / std).flatten(1)


def test_the_server_reads_the_checkpoint(exported: tuple[Run, Path]) -> None:
    checkpoint = read_checkpoint(exported[1])
    assert checkpoint.max_model_len >= 20_480
    assert checkpoint.image_max_pixels == QUICK.limits.image_max_pixels
    assert Tokenizer(exported[1]).special_id("<|im_end|>") in checkpoint.end_token_ids


def test_the_chat_template_says_what_the_server_renders(exported: tuple[Run, Path]) -> None:
    tokenizer = Tokenizer(exported[1])
    for seed in range(10):
        for exchange in draw_sample(UNDERSTAND, f"template {seed}").exchanges[:1]:
            assert _text(render(exchange.messages, template=CHAT_TEMPLATE)) == _text(render(exchange.messages))
    assert tokenizer.encode([TemplateText("<|im_end|>")], []).token_ids == [tokenizer.special_id("<|im_end|>")]


def _text(segments: list) -> str:  # type: ignore[type-arg]
    return "".join(getattr(segment, "text", "<media>") for segment in segments)


def test_the_files_are_small(exported: tuple[Run, Path]) -> None:
    assert sum(path.stat().st_size for path in exported[1].iterdir()) < 20 << 20
    assert sum(weight.numel() for weight in exported[0].model.parameters()) < 10_000_000


def test_hashes_are_those_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    write_hashes(tmp_path)
    assert (tmp_path / HASHES).read_text() == f"{hashlib.sha256(b'x').hexdigest()}  a\n"


def test_a_card_without_measurements_claims_none(exported: tuple[Run, Path]) -> None:
    assert "Not measured yet" in card(exported[0], {})
