"""What a checkpoint's processor files say of images and videos: pixel limits, mean and standard deviation.

Source: transformers 4.45 to 5 `Qwen2VLImageProcessor` and `Qwen2VLVideoProcessor`. Limits were written at the top
(`min_pixels`), in `size` by the same names, and in `size` as `shortest_edge`; the files are the two old ones, or since
transformers 5 one `processor_config.json` with a section for each, which wins.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_executor.checkpoint.errors import CheckpointError
from model_executor.checkpoint.json_file import read_json
from model_executor.processor.geometry import TOKEN_PX, VIDEO_FRAME_MAX_PIXELS, VIDEO_FRAME_MIN_PIXELS

DEFAULT_IMAGE_MIN_PIXELS = 4 * TOKEN_PX
DEFAULT_IMAGE_MAX_PIXELS = 16_384 * TOKEN_PX
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of the CLIP model's training images, which Qwen2-VL normalizes with."""

_OWNER = "the model"


@dataclass(frozen=True, slots=True)
class ProcessorFiles:
    """Fields as those of `Checkpoint`."""

    image_min_pixels: int
    image_max_pixels: int
    video_min_pixels: int
    video_max_pixels: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]


def read_processor_files(directory: Path) -> ProcessorFiles:
    """Read the processor files of a model directory; what they leave out is as in the release.

    Raises:
        CheckpointError: a file is malformed.
    """
    both = read_json(directory / "processor_config.json", _OWNER, optional=True)
    image = _section(both, "image_processor", directory / "preprocessor_config.json")
    video = _section(both, "video_processor", directory / "video_preprocessor_config.json")
    return ProcessorFiles(
        image_min_pixels=_limit(image, "min_pixels", "shortest_edge", DEFAULT_IMAGE_MIN_PIXELS),
        image_max_pixels=_limit(image, "max_pixels", "longest_edge", DEFAULT_IMAGE_MAX_PIXELS),
        video_min_pixels=_limit(video, "min_pixels", "shortest_edge", VIDEO_FRAME_MIN_PIXELS),
        video_max_pixels=_limit(video, "max_pixels", "longest_edge", VIDEO_FRAME_MAX_PIXELS),
        image_mean=_channels(image, "image_mean", CLIP_MEAN),
        image_std=_channels(image, "image_std", CLIP_STD),
    )


def _section(both: dict[str, Any], name: str, path: Path) -> dict[str, Any]:
    section = both.get(name)
    return section if isinstance(section, dict) else read_json(path, _OWNER, optional=True)


def _limit(values: dict[str, Any], name: str, edge: str, default: int) -> int:
    """A pixel limit, in any of its three spellings."""
    size = values.get("size")
    size = size if isinstance(size, dict) else {}
    value = next((v for v in (values.get(name), size.get(name), size.get(edge)) if v is not None), default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"the model's {name} is {value!r}, not a positive integer")
    return value


def _channels(values: dict[str, Any], key: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
    value = values.get(key)
    value = default if value is None else value
    if not isinstance(value, list | tuple) or len(value) != 3 or not all(isinstance(v, int | float) for v in value):
        raise CheckpointError(f"the model's {key} is {value!r}, not three numbers")
    return (float(value[0]), float(value[1]), float(value[2]))
