"""Held-out accuracy by task: through a running server over HTTP, or in this process while developing.

In this process the answers are not generated: an answer would be generated greedily exactly when, given the true
beginning, every next token is the likeliest one, and that takes one pass.
"""

import asyncio
import base64
import io
import json
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import av
import httpx
import torch
from PIL import Image

from model_executor.processor.tokenizer import MediaPlaceholder, Tokenizer
from training.batch import Batch
from training.cases import (
    KIND_OF_TASK,
    LONG_SECONDS,
    NEAT_TASKS,
    QUARTER_SIDES,
    Case,
    cases,
    long_cases,
    neat,
    quarters,
)
from training.encode import encode
from training.judge import is_right
from training.loop import Run
from training.model import Model
from training.pack import collate, room_for
from training.recipe import Recipe, SizeLimits, Stage
from training.sample import Media, Sample
from training.tasks.scenes import OUTSIDE
from training.tasks.videos import FRAMES_PER_SECOND

ImageFormat = Literal["PNG", "JPEG", "WEBP"]
_CONCURRENT_REQUESTS = 8
_TIMEOUT_S = 300
MAX_TOKENS = 200
"""Of an answer; the longest caption is shorter."""
_IN_PROCESS_BATCH = 16


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered."""

    text: str
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often a task was answered correctly."""

    right: int
    stopped: int
    """Answers that ended with the end token."""
    asked: int

    @property
    def share(self) -> float:
        """0..1."""
        return self.right / self.asked


# In this process.


def measure_in_process(
    model: Model,
    tokenizer: Tokenizer,
    limits: SizeLimits,
    asked: Sequence[Case],
    change_batch: Callable[[Batch], Batch] = lambda batch: batch,
) -> Accuracy:
    """Accuracy of greedy answers without generating them (see the module).

    Args:
        model: to measure, on any device.
        tokenizer: its own.
        limits: its pixel limits.
        asked: the cases.
        change_batch: applied to every batch first: an ablation of the positions.
    """
    right = 0
    device = next(model.parameters()).device
    with torch.inference_mode():
        for start in range(0, len(asked), _IN_PROCESS_BATCH):
            chunk = asked[start : start + _IN_PROCESS_BATCH]
            encoded = [encode(Sample(case.media, (case.exchange,)), tokenizer, limits) for case in chunk]
            batch, notes = collate(encoded, room_for(encoded))
            likeliest = model(change_batch(batch).to(device)).argmax(-1).tolist()
            for number, case in enumerate(chunk):
                ids = [token for token, of in zip(likeliest, notes.exchanges, strict=False) if of == number]
                text = tokenizer.decode(ids, skip_special_tokens=False).removesuffix("<|im_end|>")
                right += is_right(case.exchange.asked, text)
    return Accuracy(right, len(asked), len(asked))


def one_dimensional(batch: Batch) -> Batch:
    """The batch (a sample to a bin) with positions that count up alike on all axes, as in a model without M-RoPE."""
    counted = torch.arange(batch.token_ids.shape[1], dtype=torch.int32)
    return replace(batch, positions=counted.expand_as(batch.positions))


def swapped(batch: Batch) -> Batch:
    """The batch with height and width exchanged in the positions."""
    return replace(batch, positions=batch.positions[[0, 2, 1]])


# Through a server.


async def ask_server(url: str, model: str, asked: list[Case], image_format: ImageFormat = "PNG") -> list[Reply]:
    """A running server's answers at temperature 0, several asked for at a time.

    Args:
        url: the API's root, `http://127.0.0.1:8000/v1`.
        model: name of the served model.
        asked: the cases.
        image_format: how images are sent; JPEG and WebP at quality 85.

    Raises:
        httpx.HTTPError: the server cannot be reached or refuses a request.
    """
    gate = asyncio.Semaphore(_CONCURRENT_REQUESTS)
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, trust_env=False) as client:

        async def ask(case: Case) -> Reply:
            async with gate:
                response = await client.post("/chat/completions", json=request_body(case, model, image_format))
                response.raise_for_status()
                choice = response.json()["choices"][0]
                return Reply(choice["message"]["content"], choice["finish_reason"])

        return await asyncio.gather(*(ask(case) for case in asked))


async def measure_through_server(
    url: str, model: str, asked: list[Case], image_format: ImageFormat = "PNG"
) -> Accuracy:
    """Accuracy of what `ask_server` is answered."""
    replies = await ask_server(url, model, asked, image_format)
    right = sum(is_right(case.exchange.asked, reply.text) for case, reply in zip(asked, replies, strict=True))
    return Accuracy(right, sum(reply.finish_reason == "stop" for reply in replies), len(asked))


def request_body(case: Case, model: str, image_format: ImageFormat = "PNG") -> dict[str, Any]:
    """The chat completion request of a case."""
    urls = [media_url(item, image_format) for item in case.media]

    def part(value: str | MediaPlaceholder) -> dict[str, Any]:
        if isinstance(value, str):
            return {"type": "text", "text": value}
        kind = f"{value.modality}_url"
        return {"type": kind, kind: {"url": urls[value.index]}}

    messages = [{"role": m.role, "content": [part(value) for value in m.parts]} for m in case.exchange.messages]
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": MAX_TOKENS}


def media_url(item: Media, image_format: ImageFormat = "PNG", repeats: int = 1) -> str:
    """A media item as a `data:` URL: images in `image_format`, videos as H.264 in MP4, each frame `repeats` times."""
    buffer = io.BytesIO()
    if item.modality == "image":
        options = {"JPEG": {"quality": 85}, "WEBP": {"quality": 85}, "PNG": {}}[image_format]
        Image.fromarray(item.frames[0]).save(buffer, image_format, **options)
        mime = f"image/{image_format.lower()}"
    else:
        _write_video(buffer, item, repeats)
        mime = "video/mp4"
    return f"data:{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _write_video(buffer: io.BytesIO, item: Media, repeats: int) -> None:
    height, width = item.frames[0].shape[:2]
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND * repeats, options={"crf": "12"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv444p"  # 4:4:4 takes odd sides
        for frame in (frame for frame in item.frames for _ in range(repeats)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


# Whole reports, as `runs/*/evaluation.json`; the model card is written from them.

SERVED_NAME = "tessera-tiny"
ABLATIONS = ("M-RoPE", "1-D", "h and w swapped")
_INSIDE = ("caption", "color", "position", "word", "motion")
_ABLATED = ("position", "grounding", "what is at", "caption", "motion", "order", "second", "blinking")


def evaluate_in_process(run: Run, number: int) -> None:
    """Measure the M-RoPE ablations, longer videos and every task: `ablations`, `long` and `in process`."""
    tokenizer, stage = Tokenizer(run.folder), run.recipe.stages[-1]

    def measure(asked: list[Case], change_batch: Callable[[Batch], Batch] = lambda batch: batch) -> float:
        return measure_in_process(run.model, tokenizer, run.recipe.limits, asked, change_batch).share

    ablations, long = {}, {}
    for task in _ABLATED:
        asked = list(cases(stage, task, number))
        shares = (measure(asked), measure(asked, one_dimensional), measure(asked, swapped))
        ablations[task] = dict(zip(ABLATIONS, shares, strict=True))
        print(f"{task:<20}{ablations[task]}", flush=True)
        record(run.folder, {"ablations": {"cases": number, "accuracy": ablations}})
    for task in ("motion", "order"):
        long[task] = {str(seconds): measure(list(long_cases(task, seconds, number))) for seconds in LONG_SECONDS}
        print(f"longer videos, {task}: {long[task]}", flush=True)
    record(run.folder, {"long": {"cases": number, "accuracy": long}})
    plain = {}
    for task in KIND_OF_TASK:
        plain[task] = measure(list(cases(stage, task, number)))
        print(f"{task:<20}{plain[task]:7.1%}", flush=True)
    on_neat = {task: measure(list(cases(neat(stage), task, number))) for task in NEAT_TASKS}
    print("neat scenes:", {task: f"{share:.1%}" for task, share in on_neat.items()}, flush=True)
    record(run.folder, {"in process": {"cases": number, "accuracy": plain, "neat": on_neat}})


async def evaluate_server(url: str, recipe: Recipe, folder: Path, number: int) -> None:
    """Measure every task through a server; write it under `server`, as it comes."""
    stage = recipe.stages[-1]
    accuracy: dict[str, float] = {}
    stopped: dict[str, float] = {}
    on_neat: dict[str, float] = {}
    values: dict[str, Any] = {"cases": number, "accuracy": accuracy, "stopped": stopped, "neat": on_neat}
    for task in KIND_OF_TASK:
        measured = await measure_through_server(url, SERVED_NAME, list(cases(stage, task, number)))
        accuracy[task], stopped[task] = measured.share, measured.stopped / measured.asked
        if task in NEAT_TASKS:
            on_neat[task] = (
                await measure_through_server(url, SERVED_NAME, list(cases(neat(stage), task, number)))
            ).share
        print(f"{task:<20}{measured.share:7.1%}  neat {on_neat.get(task, 0):.1%}", flush=True)
        record(folder, {"server": values})
    values["quarters"] = {str(side): await measure_quarters(url, side) for side in QUARTER_SIDES}
    print("four quarters:", values["quarters"], flush=True)
    formats = values["formats"] = {}
    for name in typing.get_args(ImageFormat):
        right = [
            await measure_through_server(url, SERVED_NAME, list(cases(stage, task, number)), name)
            for task in ("color", "shape", "number")
        ]
        formats[name] = sum(one.right for one in right) / sum(one.asked for one in right)
    values["declined"] = await measure_declined(url, stage, number)
    print(f"declined though it is there: {values['declined']:.1%}", flush=True)
    record(folder, {"server": values})


async def measure_declined(url: str, stage: Stage, number: int) -> float:
    """Share of `number` questions about things the model knows that it says it cannot answer."""
    asked = [case for task in _INSIDE for case in cases(stage, task, number // len(_INSIDE))]
    replies = await ask_server(url, SERVED_NAME, asked)
    return sum(reply.text == OUTSIDE for reply in replies) / len(asked)


async def measure_quarters(url: str, side: int) -> dict[str, int]:
    """Of forty things in ten images of four quarters: boxes that are right, and things that captions tell right."""
    boxes = phrases = 0
    for item, exchanges in quarters(side, 10):
        replies = await ask_server(url, SERVED_NAME, [Case((item,), exchange) for exchange in exchanges])
        boxes += sum(is_right(e.asked, r.text) for e, r in zip(exchanges[1:], replies[1:], strict=True))
        said = replies[0].text.rstrip(".").lower().split(", ")
        phrases += sum(any(right in said for right in wanted) for wanted in exchanges[0].asked.phrases)
    return {"boxes": boxes, "captions": phrases}


def record(folder: Path, values: dict[str, Any]) -> None:
    """Add `values` to the folder's `evaluation.json`, replacing what stood under the same names."""
    path = folder / "evaluation.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(before | values, indent=2) + "\n")
