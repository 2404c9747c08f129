"""The independent side of every exactness test: transformers on the same weights, fed by its own pipeline.

Stills go through transformers' PIL processor; clips through PyAV and plain numpy, decoded whole; both are resized by
FFmpeg's bicubic scaler (how far that is from Pillow's is tested where pictures are); the prompt is the chat template's
text encoded at once; positions are a literal reading of the paper. Nothing here uses the project.
"""

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import torch
from av.video.reformatter import Interpolation
from PIL import Image
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])
BICUBIC = Interpolation.BICUBIC | Interpolation.ACCURATE_RND


@dataclass(frozen=True)
class Still:
    """A picture of a conversation."""

    picture: Image.Image


@dataclass(frozen=True)
class Clip:
    """A clip of a conversation: the file, and the limits of its frames where those are not the usual ones."""

    content: bytes
    max_pixels: int = 768 * 784
    min_pixels: int = 128 * 784
    fps: float = 2.0
    """Frames a second that are looked at."""


Turn = tuple[str, list[str | Still | Clip]]
"""Role and parts."""


@dataclass(frozen=True)
class Answer:
    """A greedy answer."""

    token_ids: list[int]
    tokens: list[str]
    """What each id decodes to by itself."""
    logprobs: list[float]
    num_prompt_tokens: int


class Oracle:
    """transformers' Qwen2-VL or Qwen2.5-VL in float32.

    Args:
        model: checkpoint folder.
    """

    def __init__(self, model: Path) -> None:
        """Load it."""
        torch.set_num_threads(1)  # threads that spin while they wait for each other crawl on a busy machine
        self.folder = model
        classes = {
            each.__name__: each for each in (Qwen2VLForConditionalGeneration, Qwen2_5_VLForConditionalGeneration)
        }
        (architecture,) = json.loads((model / "config.json").read_text())["architectures"]
        self.network = classes[architecture].from_pretrained(model, dtype=torch.float32)
        self.network.train(False)
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.processor = Qwen2VLImageProcessorPil.from_pretrained(model)

    @torch.inference_mode()
    def answer(self, turns: list[Turn], max_tokens: int, *, until: int | None = None) -> Answer:
        """The most likely token, `max_tokens` times over, end tokens included; or up to the token `until`."""
        text, grids, pixels = self.prompt(turns)
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        positions = literal_positions(ids, grids, self.placeholders(), self.time_steps(turns))
        first: dict[str, Any] = {**pixels, "position_ids": torch.tensor(positions)[:, None]}
        step = self.network(input_ids=torch.tensor([ids]), use_cache=True, **first)
        position, chosen, logprobs = int(np.max(positions)) + 1, [], []
        while True:
            distribution = step.logits[0, -1].float().log_softmax(-1)
            chosen.append(int(distribution.argmax()))
            logprobs.append(float(distribution.max()))
            if len(chosen) == max_tokens or chosen[-1] == until:
                break
            step = self.network(
                input_ids=torch.tensor([chosen[-1:]]),
                position_ids=torch.full((3, 1, 1), position),
                past_key_values=step.past_key_values,
                use_cache=True,
            )
            position += 1
        return Answer(chosen, [str(self.tokenizer.decode([id_])) for id_ in chosen], logprobs, len(ids))

    @torch.inference_mode()
    def prompt_logprobs(self, token_ids: list[int]) -> torch.Tensor:
        """[T - 1, vocabulary]: how likely each token was at each position after the first, in a text without media."""
        logits: torch.Tensor = self.network(input_ids=torch.tensor([token_ids])).logits
        return logits[0, :-1].float().log_softmax(-1)

    def text(self, token_ids: list[int]) -> str:
        """The ids as a client would read them."""
        return str(self.tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def time_steps(self, turns: list[Turn]) -> list[float]:
        """What the time id rises by from slice to slice, per picture and clip, before it is cut to a whole number."""
        media = [part for _, parts in turns for part in parts if not isinstance(part, str)]
        tokens_per_second = getattr(self.network.config.vision_config, "tokens_per_second", None)
        if tokens_per_second is None:
            return [1.0] * len(media)
        return [tokens_per_second * slice_seconds(part) if isinstance(part, Clip) else 1.0 for part in media]

    def placeholders(self) -> tuple[int, int]:
        """Ids of the picture and the clip placeholder."""
        config = self.network.config
        return config.image_token_id, config.video_token_id

    def prompt(self, turns: list[Turn]) -> tuple[str, list[tuple[int, int, int]], dict[str, torch.Tensor]]:
        """Text with placeholders expanded, grids in order, and pixels under transformers' names."""
        text, grids = "", []
        arrays: dict[str, list[npt.NDArray[np.float32]]] = {"image": [], "video": []}
        shapes: dict[str, list[tuple[int, int, int]]] = {"image": [], "video": []}
        if turns[0][0] != "system":
            turns = [("system", ["You are a helpful assistant."]), *turns]
        for role, parts in turns:
            text += f"<|im_start|>{role}\n"
            for part in parts:
                if isinstance(part, str):
                    text += part
                    continue
                kind = "image" if isinstance(part, Still) else "video"
                rows, grid = self._still(part.picture) if isinstance(part, Still) else clip_rows(part)
                arrays[kind].append(rows)
                shapes[kind].append(grid)
                grids.append(grid)
                text += f"<|vision_start|>{f'<|{kind}_pad|>' * (math.prod(grid) // 4)}<|vision_end|>"
            text += "<|im_end|>\n"
        pixels: dict[str, torch.Tensor] = {}
        for kind, names in (
            ("image", ("pixel_values", "image_grid_thw")),
            ("video", ("pixel_values_videos", "video_grid_thw")),
        ):
            if arrays[kind]:
                pixels[names[0]] = torch.from_numpy(np.concatenate(arrays[kind]))
                pixels[names[1]] = torch.tensor(shapes[kind])
        return text + "<|im_start|>assistant\n", grids, pixels

    def _still(self, picture: Image.Image) -> tuple[npt.NDArray[np.float32], tuple[int, int, int]]:
        made = self.processor(images=[picture.convert("RGB")], return_tensors="np")
        t, h, w = made["image_grid_thw"][0].tolist()
        if picture.size != (14 * w, 14 * h):
            resized = resized_still(picture.convert("RGB"), 14 * h, 14 * w)
            made = self.processor(images=[resized], do_resize=False, return_tensors="np")  # its rule is not idempotent
        return np.asarray(made["pixel_values"], np.float32), (t, h, w)


def clip_rows(clip: Clip) -> tuple[npt.NDArray[np.float32], tuple[int, int, int]]:
    """Normalized patch rows [P, 1176] and grid of a constant-rate clip."""
    frames, rate = decoded(clip)
    total, count = len(frames), num_sampled(len(frames), rate, clip.fps)
    chosen = [frames[round(index)] for index in np.linspace(0, total - 1, count)]
    height, width = clip_size(frames[0].height, frames[0].width, count, clip.min_pixels, clip.max_pixels)
    resized = [frame.reformat(width, height, "gbrp", interpolation=BICUBIC, threads=1).to_ndarray() for frame in chosen]
    pixels = ((np.stack(resized) / 255 - MEAN) / STD).astype(np.float32)
    t, h, w = count // 2, height // 14, width // 14
    blocks = pixels.reshape(t, 2, h // 2, 2, 14, w // 2, 2, 14, 3)
    return blocks.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(t * h * w, 1176), (t, h, w)


def decoded(clip: Clip) -> tuple[list[av.VideoFrame], float]:
    """All frames, and their rate."""
    with av.open(io.BytesIO(clip.content), "r") as container:
        return list(container.decode(video=0)), float(container.streams.video[0].average_rate or 1)


def num_sampled(total: int, rate: float, fps: float) -> int:
    """How many of a clip's frames are looked at, by the published formula."""
    return math.floor(min(max(total / rate * fps, 4), min(768, total) // 2 * 2) / 2) * 2


def slice_seconds(clip: Clip) -> float:
    """Seconds between two slices of two frames."""
    frames, rate = decoded(clip)
    return 2 * (len(frames) / rate) / num_sampled(len(frames), rate, clip.fps)


def resized_still(picture: Image.Image, height: int, width: int) -> Image.Image:
    """Each channel scaled as a gray picture."""
    channels = [av.VideoFrame.from_ndarray(np.asarray(channel), format="gray") for channel in picture.split()]
    scaled = [frame.reformat(width, height, interpolation=BICUBIC, threads=1).to_ndarray() for frame in channels]
    return Image.fromarray(np.stack(scaled, -1))


def clip_size(height: int, width: int, count: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Height and width of every frame, by the published formula."""
    top = min(768 * 784, 16_384 * 784 * 2 / count, max_pixels)
    low = min(min_pixels, top)
    h, w = max(28, round(height / 28) * 28), max(28, round(width / 28) * 28)
    if h * w > top:
        shrink = math.sqrt(height * width / top)
        h, w = (max(28, math.floor(side / shrink / 28) * 28) for side in (height, width))
    elif h * w < low:
        grow = math.sqrt(low / (height * width))
        h, w = (math.ceil(side * grow / 28) * 28 for side in (height, width))
    return h, w


def literal_positions(
    ids: list[int],
    grids: list[tuple[int, int, int]],
    placeholders: tuple[int, int],
    time_steps: list[float] | None = None,
) -> npt.NDArray[np.int64]:
    """Positions [3, T], token by token."""
    columns: list[tuple[int, int, int]] = []
    remaining = iter(zip(grids, time_steps or [1.0] * len(grids), strict=True))
    following = 0
    while len(columns) < len(ids):
        if ids[len(columns)] not in placeholders:
            columns.append((following,) * 3)
            following += 1
            continue
        (t, h, w), step = next(remaining)
        times = [int(np.float32(step) * np.float32(a)) for a in range(t)]
        run = [(a, b, c) for a in times for b in range(h // 2) for c in range(w // 2)]
        columns.extend((following + a, following + b, following + c) for a, b, c in run)
        following += max(times[-1] + 1, h // 2, w // 2)
    return np.array(columns, np.int64).T
