"""Accounts for every weight of a model before it is loaded: which tensors it needs, and which its files have.

vLLM does not notice a linear layer, a head or a merger that no file has: it computes with whatever the memory held.
Only headers are read here. Which tensors a model has is said by its family (`Family.tensors`).

Source: AutoAWQ, GPTQModel, compressed-tensors and bitsandbytes for how the matrix of a quantized layer is stored.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from model_executor.checkpoint.errors import CheckpointError
from model_executor.checkpoint.json_file import read_json
from model_executor.families.family import Shape
from model_executor.families.known import family_of
from model_executor.families.qwen2_tensors import is_tied

MAX_NAMED = 10
"""Tensors that an error names; of the others it gives the number."""

_OWNER = "the model"
_INDEX = "model.safetensors.index.json"
_NEW_PREFIXES = (("model.visual.", "visual."), ("model.language_model.", "model."))
"""What transformers 5 writes, and the release's names for it."""
_PACKED = {"qweight": ("qzeros", "scales"), "weight_packed": ("weight_scale",)}
"""Names of a quantized layer's matrix, and the tensors it cannot be read without."""
_BESIDE = frozenset(
    (
        *("g_idx", "qzeros", "scales", "bias", "weight_scale", "weight_scale_inv", "weight_shape", "weight_zero_point"),
        *("weight_g_idx", "weight_global_scale", "input_scale", "input_zero_point", "input_global_scale"),
        *("k_scale", "v_scale", "q_scale", "output_scale", "SCB", "weight_format"),
    )
)
"""What else lies next to a quantized layer's matrix; a GPTQ file has a bias for layers without one."""
_SHORT_TYPES = ("I8", "U8", "F8_E4M3", "F8_E5M2")
"""Number formats that say nothing without a scale."""


def check_weights(directory: Path) -> None:
    """Check that a model directory's safetensors files hold the whole model and nothing else.

    A directory without such files is left to whoever reads its other files (`check_tensors`).

    Raises:
        CheckpointError: tensors are missing, unexpected or of the wrong shape, or a file is missing or damaged.
    """
    paths = _weight_files(directory)
    if not paths:
        return
    tensors: dict[str, tuple[Shape, str]] = {}
    for path in paths:
        tensors |= _headers(path)
    check_tensors(read_json(directory / "config.json", _OWNER), tensors)


def check_tensors(config: Mapping[str, Any], tensors: Mapping[str, tuple[Shape, str]]) -> None:
    """Check that tensors are those of a model.

    Args:
        config: the model's `config.json`.
        tensors: shape and number format (as safetensors writes it) by name, of either generation of names.

    Raises:
        CheckpointError: see `check_weights`; names at most `MAX_NAMED` tensors.
    """
    family = family_of(config)
    expected = dict(family.tensors(config))
    found = {_released_name(name): value for name, value in tensors.items()}
    is_quantized = any(_section(config, name) for name in ("quantization_config", "compression_config"))
    missing = [part for name in expected for part in _missing_parts(name, found)]
    misshapen = [
        f"{name!r} is {list(found[name][0])} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name][0] != shape and not (is_quantized and found[name][1] in _SHORT_TYPES)
    ]
    unexpected = [
        name
        for name in found
        if name not in expected
        and not name.endswith(family.ignored_tensors)
        and not _is_beside(name, expected, is_quantized)
        and not (is_tied(config) and name == "lm_head.weight")
    ]
    parts = [
        *(["lack " + _named(list(map(repr, missing)))] if missing else []),
        *(["hold " + _named(list(map(repr, unexpected))) + ", which no such model has"] if unexpected else []),
        *(["have wrong shapes: " + _named(misshapen)] if misshapen else []),
    ]
    if parts:
        raise CheckpointError(
            f"the model's weights do not fit its config.json: they {'; they '.join(parts)}; get the files of the whole "
            "model again, or merge it again"
        )


def _missing_parts(name: str, found: Mapping[str, tuple[Shape, str]]) -> list[str]:
    """Which tensors are not there of one that is needed, in whichever form the file has it."""
    module, _, part = name.rpartition(".")
    if name in found:
        has_scale = any(f"{module}.{scale}" in found for scale in ("weight_scale", "weight_scale_inv", "SCB"))
        return [f"{module}.weight_scale"] if found[name][1] in _SHORT_TYPES[2:] and not has_scale else []
    for packed, companions in _PACKED.items():
        if part == "weight" and f"{module}.{packed}" in found:
            return [f"{module}.{each}" for each in companions if f"{module}.{each}" not in found]
    return [name]


def _is_beside(name: str, expected: Mapping[str, Shape], is_quantized: bool) -> bool:
    """Whether a tensor needs no place of its own: it is part of a quantized layer."""
    matrix, _, rest = name.partition(".weight.")  # bitsandbytes: `q_proj.weight.absmax`
    module, _, part = name.rpartition(".") if not rest else (matrix, "", "")
    return is_quantized and (bool(rest) or part in _PACKED or part in _BESIDE) and f"{module}.weight" in expected


def _released_name(name: str) -> str:
    for new, released in _NEW_PREFIXES:
        if name.startswith(new):
            return released + name.removeprefix(new)
    return name


def _section(config: Mapping[str, Any], name: str) -> Any:
    return config.get(name) or (config.get("text_config") or {}).get(name)


def _named(items: list[str]) -> str:
    """At most `MAX_NAMED` items, and the number of the others."""
    more = len(items) - MAX_NAMED
    return ", ".join(items[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _weight_files(directory: Path) -> list[Path]:
    """The safetensors files vLLM loads: those of the index, or all where there is none."""
    if not (directory / _INDEX).is_file():
        return sorted(directory.glob("*.safetensors"))
    homes = read_json(directory / _INDEX, _OWNER).get("weight_map")
    if not isinstance(homes, dict) or not all(isinstance(file, str) and "/" not in file for file in homes.values()):
        raise CheckpointError(f"{_INDEX} of {_OWNER} has no weight_map from tensors to files")
    files = sorted(set(homes.values()))
    if absent := [file for file in files if not (directory / file).is_file()]:
        raise CheckpointError(f"the model lacks {_named(absent)}, which {_INDEX} names; download the rest")
    return [directory / file for file in files]


def _headers(path: Path) -> dict[str, tuple[Shape, str]]:
    """Shape and number format of each tensor of a safetensors file."""
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: (tuple(item.get_shape()), item.get_dtype()) for name, item in slices.items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name} of {_OWNER} is cut off or no safetensors file: {error}") from error
