"""Held-out accuracy by task: through a running server over HTTP, or in this process while developing.

An answer counts when it is exactly right; a box when it overlaps the true one by half (intersection over union); a
second when it is at most half a second off. In this process the answers are not generated: an answer would be generated
greedily exactly when, given the true beginning, every next token is the likeliest one, and that takes one pass.
"""

import asyncio
import base64
import io
import json
import re
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Literal

import av
import httpx
import numpy as np
import torch
from PIL import Image

from model_executor.processor.tokenizer import MediaPlaceholder, Tokenizer
from training.batch import Batch, collate, encode
from training.data import draw_sample
from training.loop import Run
from training.model import Model
from training.recipe import Limits, Recipe, Stage
from training.sample import Asked, Exchange, Medium, Sample, converse
from training.tasks.videos import FRAMES_PER_SECOND, appearance, motion

PictureFormat = Literal["PNG", "JPEG", "WEBP"]
KIND_OF_TASK = {
    **dict.fromkeys(
        ("caption", "color", "shape", "position", "size", "count", "what is at", "exists", "grounding"), "scene"
    ),
    **dict.fromkeys(("form", "background", "outside"), "scene"),
    **dict.fromkeys(("word", "number"), "reading"),
    **dict.fromkeys(("comparison", "one of several"), "pair"),
    **dict.fromkeys(("motion", "order", "second", "change", "blinking", "clip caption"), "clip"),
    "handwriting": "handwriting",
    "talk": "talk",
    "photo": "photo",
}
"""The tasks that are measured, and the kind of sample each is found in."""
_CONCURRENT_REQUESTS = 8
_TIMEOUT_S = 300
MAX_TOKENS = 160
"""Of an answer; the longest caption is far shorter."""
_IN_PROCESS_BATCH = 32
_BOX = re.compile(r"\((\d+),(\d+)\),\((\d+),(\d+)\)")


@dataclass(frozen=True, slots=True)
class Case:
    """One held-out question."""

    media: tuple[Medium, ...]
    exchange: Exchange


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered."""

    text: str
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often a task was answered rightly."""

    right: int
    stopped: int
    """Answers that ended with the end token."""
    asked: int

    @property
    def share(self) -> float:
        """0..1."""
        return self.right / self.asked


def cases(stage: Stage, task: str, number: int) -> Iterator[Case]:
    """`number` held-out cases of a task, drawn as the stage draws; never seen in training."""
    only = Stage(**{**vars(stage), "samples": {KIND_OF_TASK[task]: 1.0}})
    found = seed = 0
    while found < number:
        sample = draw_sample(only, f"{task} {seed}", "held-out")
        seed += 1
        fitting = [exchange for exchange in sample.exchanges if exchange.task == task]
        if fitting:
            found += 1
            yield Case(sample.media, fitting[seed % len(fitting)])


def long_cases(task: str, times: int, stage: Stage, number: int) -> Iterator[Case]:
    """Cases of `motion` or `order` on clips `times` as long as the longest in training."""
    make: dict[str, Callable[[Random, int], tuple[Medium, list[Asked]]]] = {"motion": motion, "order": appearance}
    for seed in range(number):
        medium, asked = make[task](Random(f"long {task} {times} {seed}"), stage.clip_frames[1] * times)
        exchange = next(
            e for e in converse((medium,), asked, system=None, media_first=True).exchanges if e.task == task
        )
        yield Case((medium,), exchange)


def is_right(exchange: Exchange, text: str) -> bool:
    """Whether a reply answers the exchange."""
    if exchange.task == "grounding":
        given, true = _BOX.search(text), _BOX.search(exchange.answer)
        return given is not None and true is not None and overlap(_corners(given), _corners(true)) >= 0.5
    if exchange.task == "second":
        return text.strip().isdigit() and abs(int(text) - int(exchange.answer)) <= 0.5
    if exchange.task in ("count", "comparison"):  # what was counted or compared stands before it
        return _verdict(text) == _verdict(exchange.answer)
    return text.strip() == exchange.answer


def _verdict(text: str) -> str:
    return text.strip().rpartition(": ")[2]


def _corners(match: re.Match[str]) -> tuple[int, int, int, int]:
    x1, y1, x2, y2 = (int(value) for value in match.groups())
    return x1, y1, x2, y2


def overlap(first: tuple[int, int, int, int], second: tuple[int, int, int, int]) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2); 0..1."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(0, width) * max(0, height)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return shared / (areas - shared) if areas > shared else 0.0


# In this process.


def measure_in_process(
    model: Model, tokenizer: Tokenizer, limits: Limits, asked: list[Case], change_batch: Callable[[Batch], Batch]
) -> Accuracy:
    """Accuracy of greedy answers without generating them (see the module).

    Args:
        model: to measure.
        tokenizer: its own.
        limits: its pixel limits.
        asked: the cases.
        change_batch: applied to every batch first: the identity, or an ablation of the positions.
    """
    right = 0
    with torch.inference_mode():
        for start in range(0, len(asked), _IN_PROCESS_BATCH):
            chunk = asked[start : start + _IN_PROCESS_BATCH]
            for case in chunk:
                encoded = [encode(Sample(case.media, (case.exchange,)), tokenizer, limits)]
                batch = change_batch(collate(encoded))
                text = tokenizer.decode(model(batch).argmax(-1).tolist(), skip_special_tokens=False)
                right += is_right(case.exchange, text.removesuffix("<|im_end|>"))
    return Accuracy(right, len(asked), len(asked))


def one_dimensional(batch: Batch) -> Batch:
    """The batch with positions that count up alike on all axes, as in a model without M-RoPE."""
    counted = np.concatenate([np.arange(length) for length in batch.sample_tokens])
    return _with_positions(batch, np.tile(counted, (3, 1)))


def swapped(batch: Batch) -> Batch:
    """The batch with height and width exchanged in the positions."""
    return _with_positions(batch, batch.positions[[0, 2, 1]])


def _with_positions(batch: Batch, positions: np.ndarray) -> Batch:
    return replace(batch, positions=positions)


# Through a server.


async def ask_server(url: str, model: str, asked: list[Case], picture_format: PictureFormat = "PNG") -> list[Reply]:
    """A running server's answers at temperature 0, several asked for at a time.

    Args:
        url: the API's root, `http://127.0.0.1:8000/v1`.
        model: name of the served model.
        asked: the cases.
        picture_format: how pictures are sent; JPEG and WebP at quality 85.

    Raises:
        httpx.HTTPError: the server cannot be reached or refuses a request.
    """
    gate = asyncio.Semaphore(_CONCURRENT_REQUESTS)
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, trust_env=False) as client:

        async def ask(case: Case) -> Reply:
            async with gate:
                response = await client.post("/chat/completions", json=request_body(case, model, picture_format))
                response.raise_for_status()
                choice = response.json()["choices"][0]
                return Reply(choice["message"]["content"], choice["finish_reason"])

        return await asyncio.gather(*(ask(case) for case in asked))


async def measure_through_server(
    url: str, model: str, asked: list[Case], picture_format: PictureFormat = "PNG"
) -> Accuracy:
    """Accuracy of what `ask_server` is answered."""
    replies = await ask_server(url, model, asked, picture_format)
    right = sum(is_right(case.exchange, reply.text) for case, reply in zip(asked, replies, strict=True))
    return Accuracy(right, sum(reply.finish_reason == "stop" for reply in replies), len(asked))


def request_body(case: Case, model: str, picture_format: PictureFormat = "PNG") -> dict[str, Any]:
    """The chat completion request of a case."""
    urls = [media_url(medium, picture_format) for medium in case.media]

    def part(value: str | MediaPlaceholder) -> dict[str, Any]:
        if isinstance(value, str):
            return {"type": "text", "text": value}
        kind = f"{value.modality}_url"
        return {"type": kind, kind: {"url": urls[value.index]}}

    messages = [{"role": m.role, "content": [part(value) for value in m.parts]} for m in case.exchange.messages]
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": MAX_TOKENS}


def media_url(medium: Medium, picture_format: PictureFormat = "PNG") -> str:
    """A medium as a `data:` URL: pictures in `picture_format`, clips as H.264 in MP4."""
    buffer = io.BytesIO()
    if medium.modality == "image":
        options = {"JPEG": {"quality": 85}, "WEBP": {"quality": 85}, "PNG": {}}[picture_format]
        Image.fromarray(medium.frames[0]).save(buffer, picture_format, **options)
        mime = f"image/{picture_format.lower()}"
    else:
        _write_clip(buffer, medium)
        mime = "video/mp4"
    return f"data:{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _write_clip(buffer: io.BytesIO, medium: Medium) -> None:
    height, width = medium.frames[0].shape[:2]
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": "12"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv444p"  # 4:4:4 takes odd sides
        for frame in medium.frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


# Whole reports, as `runs/*/evaluation.json`; the model card is written from them.

SERVED_NAME = "tessera-tiny"
_ABLATED = ("position", "grounding", "what is at", "caption", "motion", "order", "second", "blinking")
_LONG = (1, 2, 4)


def evaluate_in_process(run: Run, number: int) -> None:
    """Measure every task, the M-RoPE ablations and longer clips; write them under `in process`, `ablations`, `long`."""
    tokenizer, stage = Tokenizer(run.folder), run.recipe.stages[-1]

    def measure(asked: list[Case], change_batch: Callable[[Batch], Batch] = lambda batch: batch) -> float:
        return measure_in_process(run.model, tokenizer, run.recipe.limits, asked, change_batch).share

    plain, ablations = {}, {}
    for task in KIND_OF_TASK:
        asked = list(cases(stage, task, number))
        plain[task] = measure(asked)
        if task in _ABLATED:
            ablations[task] = {"1-D": measure(asked, one_dimensional), "h and w swapped": measure(asked, swapped)}
        print(f"{task:<14}{plain[task]:7.1%}  {ablations.get(task, '')}", flush=True)
    long = {
        task: {str(times): measure(list(long_cases(task, times, stage, number))) for times in _LONG}
        for task in ("motion", "order")
    }
    record(run.folder, {"in process": {"cases": number, "accuracy": plain}, "ablations": ablations, "long": long})


async def evaluate_server(url: str, recipe: Recipe, folder: Path, number: int) -> None:
    """Measure every task through a server; write it under `server`, as it comes."""
    accuracy: dict[str, float] = {}
    stopped: dict[str, float] = {}
    values: dict[str, Any] = {"cases": number, "accuracy": accuracy, "stopped": stopped}
    for task in KIND_OF_TASK:
        asked = list(cases(recipe.stages[-1], task, number))
        measured = await measure_through_server(url, SERVED_NAME, asked)
        accuracy[task], stopped[task] = measured.share, measured.stopped / measured.asked
        print(f"{task:<14}{measured.share:7.1%}  stopped {stopped[task]:.1%}", flush=True)
        record(folder, {"server": values})
    formats = values["formats"] = {}
    for name in typing.get_args(PictureFormat):
        right = [
            await measure_through_server(url, SERVED_NAME, list(cases(recipe.stages[-1], task, number)), name)
            for task in ("color", "shape", "number")
        ]
        formats[name] = sum(one.right for one in right) / sum(one.asked for one in right)
        record(folder, {"server": values})


def record(folder: Path, values: dict[str, Any]) -> None:
    """Add `values` to the folder's `evaluation.json`, replacing what stood under the same names."""
    path = folder / "evaluation.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | values, indent=2) + "\n")
