"""A checkpoint's quantization format, read from its `config.json`, and whether vLLM's CPU build supports it.

On a GPU vLLM checks the format itself. On a CPU it would fail while it builds the model, in a process that cannot
report why, so the formats it has CPU kernels for are listed here.

Source: vLLM 0.32, `model_executor/kernels/linear/{mixed_precision,scaled_mm}/cpu.py`.
"""

from dataclasses import dataclass
from typing import Any

CPU_FORMATS = "4-bit AWQ, 4-bit GPTQ, and compressed-tensors with 8-bit integer weights and activations"
"""The formats that `Quantization.runs_on_cpu` accepts, for error messages."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """A quantized checkpoint's format."""

    method: str
    """The checkpoint's `quant_method`, such as `awq`."""
    formats: tuple[str, ...]
    """Formats of weights and, where they are quantized, activations: `int4`, `int8 x int8`, `float8 x float8`."""

    @property
    def runs_on_cpu(self) -> bool:
        """Whether vLLM's CPU build supports every one of the formats."""
        supported = {"awq": "int4", "gptq": "int4", "compressed-tensors": "int8 x int8"}.get(self.method)
        return bool(self.formats) and set(self.formats) == {supported}

    def needs_bfloat16(self, *, int8_tiles: bool) -> bool:
        """Whether vLLM computes everything else in bfloat16 only.

        Args:
            int8_tiles: whether a CPU multiplies tiles of 8-bit integers (AMX); vLLM's kernel for these has no float32.
        """
        return self.method in ("awq", "gptq") or (int8_tiles and self.runs_on_cpu)

    def __str__(self) -> str:
        """The format as error messages name it."""
        return f"{self.method} ({', '.join(self.formats) or 'of unknown format'})"


def read_quantization(config: dict[str, Any]) -> Quantization | None:
    """The quantization of a model with this `config.json`; None if its weights are not quantized."""
    text = config.get("text_config") or config
    section = config.get("quantization_config") or config.get("compression_config") or text.get("quantization_config")
    if not isinstance(section, dict):
        return None
    method = str(section.get("quant_method", "unnamed"))
    groups = section.get("config_groups")
    if isinstance(groups, dict):
        return Quantization(method, tuple(sorted({_group_format(group) for group in groups.values()})))
    bits = section.get("bits", section.get("w_bit"))
    return Quantization(method, () if bits is None else (f"int{bits}",))


def _group_format(group: dict[str, Any]) -> str:
    """Formats of weights and, where they are quantized, activations of one group of compressed-tensors."""
    parts = (group.get("weights"), group.get("input_activations"))
    return " x ".join(f"{part.get('type', 'int')}{part.get('num_bits')}" for part in parts if part)
