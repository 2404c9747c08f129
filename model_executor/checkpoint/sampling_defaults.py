"""How a checkpoint's authors sample from it: the part of `generation_config.json` that requests can say, too."""

from collections.abc import Mapping
from typing import Any

from model_executor.checkpoint.errors import CheckpointError

_RANGES = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_k": (-1, 2**31 - 1),
    "min_p": (0, 1),
    "repetition_penalty": (0, 100),
}
_NOT_ZERO = ("top_p", "repetition_penalty")


def read_sampling_defaults(generation: Mapping[str, Any]) -> dict[str, float]:
    """The values for requests that leave them open, by the names requests have for them.

    As in vLLM, `do_sample` does not count.

    Args:
        generation: `generation_config.json`.

    Raises:
        CheckpointError: a value is no number or out of the range a request may have.
    """
    defaults = {name: generation[name] for name in _RANGES if generation.get(name) is not None}
    for name, value in defaults.items():
        least, most = _RANGES[name]
        is_number = isinstance(value, int if name == "top_k" else int | float) and not isinstance(value, bool)
        if not is_number or not least <= value <= most or (value == 0 and name in _NOT_ZERO):
            raise CheckpointError(f"generation_config.json has an unusable {name}: {value!r}")
    return defaults
