"""transformers on the same weights and inputs: what a person would otherwise run on this machine."""

import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from benchmarks.inputs import DECODE_BATCHES, DECODE_TOKENS, QUESTION, REPEATS, jpeg


def measure(model: Path) -> dict[str, float]:
    """Rows of the table that transformers has too, in milliseconds."""
    network: Any = Qwen2VLForConditionalGeneration.from_pretrained(model, dtype=torch.float32)
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    rows = {}
    with torch.inference_mode():
        prompt = torch.tensor([tokenizer.encode(f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n")])
        for batch in DECODE_BATCHES:
            ids = prompt.expand(batch, -1)

            def decode(count: int, ids: torch.Tensor = ids) -> None:
                network.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=count,
                    min_new_tokens=count,
                    do_sample=False,
                )

            decode(4)
            longer, shorter = _seconds(lambda: decode(DECODE_TOKENS)), _seconds(lambda: decode(1))
            rows[f"decode step, batch {batch}, ms"] = (longer - shorter) / (DECODE_TOKENS - 1) * 1000
        rows["first token, 1280x960 JPEG, new, ms"] = _picture_s(network, tokenizer, model) * 1000
    return rows


def _picture_s(network: Any, tokenizer: Any, model: Path) -> float:
    """Seconds from JPEG bytes to the first token."""
    processor = Qwen2VLImageProcessorPil.from_pretrained(model)
    times = []
    for seed in range(REPEATS):
        content = jpeg(seed)
        started = time.monotonic()
        inputs = processor(images=[Image.open(io.BytesIO(content)).convert("RGB")], return_tensors="pt")
        count = int(inputs["image_grid_thw"].prod()) // 4
        text = f"<|im_start|>user\n<|vision_start|>{'<|image_pad|>' * count}<|vision_end|>{QUESTION}<|im_end|>\n"
        ids = torch.tensor([tokenizer.encode(f"{text}<|im_start|>assistant\n")])
        network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == network.config.image_token_id).long(),
            **inputs,
            max_new_tokens=1,
        )
        times.append(time.monotonic() - started)
    return statistics.median(times)


def _seconds(run: Callable[[], None]) -> float:
    """The median time of a few runs."""
    times = []
    for _ in range(REPEATS):
        started = time.monotonic()
        run()
        times.append(time.monotonic() - started)
    return statistics.median(times)
