"""How a checkpoint's weights are quantised, by its `config.json`, and whether a CPU can run that.

On a GPU vLLM judges for itself. On a CPU it would fail while it builds the model, in a process that cannot say why, so
what it has bodies for is said here.

Source: vLLM 0.32, `model_executor/kernels/linear/{mixed_precision,scaled_mm}/cpu.py`.
"""

from dataclasses import dataclass
from typing import Any

CPU_FORMATS = "awq and gptq with 4 bits, compressed-tensors with 8-bit integer weights and activations"
"""What `Quantisation.runs_on_cpu` accepts, for people."""


@dataclass(frozen=True, slots=True)
class Quantisation:
    """A quantised checkpoint's format."""

    method: str
    """As `quant_method` names it."""
    formats: tuple[str, ...]
    """What numbers are stored as, and computed with where that is said: `int4`, `int8 x int8`, `float8 x float8`."""

    @property
    def runs_on_cpu(self) -> bool:
        """Whether vLLM's CPU build computes with every one of the formats."""
        wanted = {"awq": "int4", "gptq": "int4", "compressed-tensors": "int8 x int8"}.get(self.method)
        return bool(self.formats) and set(self.formats) == {wanted}

    @property
    def needs_bfloat16(self) -> bool:
        """Whether vLLM offers no float32 beside it."""
        return self.method in ("awq", "gptq")

    def __str__(self) -> str:
        """For people."""
        return f"{self.method} ({', '.join(self.formats) or 'of unknown format'})"


def quantisation_of(config: dict[str, Any]) -> Quantisation | None:
    """What a model's `config.json` says; None for plain weights."""
    text = config.get("text_config", config)
    said = config.get("quantization_config") or config.get("compression_config") or text.get("quantization_config")
    if not isinstance(said, dict):
        return None
    method = str(said.get("quant_method", "unnamed"))
    groups = said.get("config_groups")
    if isinstance(groups, dict):
        return Quantisation(method, tuple(sorted({_group(group) for group in groups.values()})))
    bits = said.get("bits", said.get("w_bit"))
    return Quantisation(method, () if bits is None else (f"int{bits}",))


def _group(group: dict[str, Any]) -> str:
    """Weights, and activations where they are quantised, of one group of compressed-tensors."""
    parts = (group.get("weights"), group.get("input_activations"))
    return " x ".join(f"{part.get('type', 'int')}{part.get('num_bits')}" for part in parts if part)
