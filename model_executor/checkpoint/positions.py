"""How a checkpoint encodes positions, read from its `config.json`: context length, YaRN, sliding windows.

Source: Peng et al. 2023 (YaRN, arXiv 2309.00071) section 3.4; transformers 5 `modeling_rope_utils.py` for the names
and defaults; Qwen2-VL's README, which adds YaRN to M-RoPE.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model_executor.checkpoint.errors import CheckpointError

DEFAULT_CONTEXT = 32_768
_PLAIN = ("default", "mrope")


@dataclass(frozen=True, slots=True)
class Yarn:
    """A context stretched after training: slow rotary pairs are slowed down by `factor`, fast ones stay."""

    factor: float
    original_context: int
    """Tokens of the context before it was stretched."""
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    """Pairs that turn at least `beta_fast` times within the original context stay, below `beta_slow` all is slowed."""
    attention_factor: float | None = None
    """The checkpoint's own `magnitude`, if it has one."""

    @property
    def magnitude(self) -> float:
        """What cosines and sines are multiplied by; the paper's 0.1 ln(factor) + 1 unless the checkpoint says."""
        return self.attention_factor or 0.1 * math.log(max(self.factor, 1)) + 1


def read_yarn(text: Mapping[str, Any]) -> Yarn | None:
    """How the context is stretched; None for plain M-RoPE.

    Args:
        text: the language model's part of `config.json`.

    Raises:
        CheckpointError: a scheme other than plain M-RoPE and YaRN, or values that are no numbers.
    """
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    scheme = rope.get("rope_type") or rope.get("type") or "default"
    if scheme in _PLAIN:
        return None
    if scheme != "yarn":
        raise CheckpointError(
            f"the model's rope_type is {scheme!r}; supported are plain M-RoPE ('mrope', 'default') and 'yarn'"
        )
    context = rope.get("original_max_position_embeddings") or text.get("max_position_embeddings") or DEFAULT_CONTEXT
    given = {name: rope[name] for name in ("beta_fast", "beta_slow", "attention_factor") if rope.get(name) is not None}
    values = {"factor": rope.get("factor"), "original_context": context, **given}
    for name, value in values.items():
        if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
            raise CheckpointError(f"the model's YaRN has the {name} {value!r}, not a positive number")
    return Yarn(**values)


def context_length(text: Mapping[str, Any]) -> int:
    """Tokens of the context that the model was made for.

    Raises:
        CheckpointError: no positive number of tokens, or as `read_yarn`.
    """
    value = text.get("max_position_embeddings", DEFAULT_CONTEXT)
    if not isinstance(value, int) or value < 1:
        raise CheckpointError(f"the model's max_position_embeddings is {value!r}, not a positive integer")
    yarn = read_yarn(text)
    # Some raise max_position_embeddings themselves, and some leave it.
    return value if yarn is None else max(value, int(yarn.factor * yarn.original_context))


def check_windows(text: Mapping[str, Any]) -> None:
    """Check that every layer sees the whole context.

    Raises:
        CheckpointError: some see a sliding window only.
    """
    if not text.get("use_sliding_window"):
        return
    layers, full, window = (text.get(n) for n in ("num_hidden_layers", "max_window_layers", "sliding_window"))
    if isinstance(layers, int) and isinstance(full, int) and full >= layers:
        return  # only layers from max_window_layers on would slide
    if window is None or (isinstance(window, int) and window >= context_length(text)):
        return
    raise CheckpointError(
        f"the model's config.json has use_sliding_window, which is not supported; set it to false and serve at most "
        f"the window's {window} tokens (TESSERA_ENGINE__MAX_MODEL_LEN)"
    )
