"""What is read of a quantised checkpoint, and what a CPU takes of it."""

from typing import Any

import pytest

from model_executor.checkpoint.quantization import read_quantization


def compressed(weights: tuple[str, int], activations: tuple[str, int] | None) -> dict[str, Any]:
    described = [part and {"type": part[0], "num_bits": part[1]} for part in (weights, activations)]
    group = {"targets": ["Linear"], "weights": described[0], "input_activations": described[1]}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}


@pytest.mark.parametrize(
    ("said", "name", "runs"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "awq (int4)", True),
        ({"quant_method": "awq", "w_bit": 4}, "awq (int4)", True),
        ({"quant_method": "gptq", "bits": 4}, "gptq (int4)", True),
        ({"quant_method": "gptq", "bits": 8}, "gptq (int8)", False),
        ({"quant_method": "fp8"}, "fp8 (of unknown format)", False),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes (of unknown format)", False),
        (compressed(("int", 8), ("int", 8)), "compressed-tensors (int8 x int8)", True),
        (compressed(("float", 8), ("float", 8)), "compressed-tensors (float8 x float8)", False),
        (compressed(("int", 4), None), "compressed-tensors (int4)", False),
    ],
)
def test_formats_are_named_and_told_apart(said: dict[str, Any], name: str, *, runs: bool) -> None:
    for config in ({"quantization_config": said}, {"text_config": {"quantization_config": said}}):
        quantization = read_quantization(config)
        assert quantization is not None
        assert str(quantization) == name
        assert quantization.runs_on_cpu is runs


def test_one_group_that_does_not_run_is_enough() -> None:
    said = compressed(("int", 8), ("int", 8))
    said["config_groups"] |= {"group_1": compressed(("float", 8), ("float", 8))["config_groups"]["group_0"]}
    quantization = read_quantization({"compression_config": said})
    assert quantization is not None and not quantization.runs_on_cpu
    assert str(quantization) == "compressed-tensors (float8 x float8, int8 x int8)"


def test_plain_weights_have_none() -> None:
    assert read_quantization({"text_config": {}}) is None
