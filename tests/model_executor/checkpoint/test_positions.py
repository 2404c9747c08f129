"""Context lengths, stretched contexts and sliding windows of `config.json`."""

from typing import Any

import pytest

from model_executor.checkpoint.errors import CheckpointError
from model_executor.checkpoint.positions import Yarn, check_windows, context_length, read_yarn

YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768}


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ({}, 32_768),
        ({"max_position_embeddings": 4096}, 4096),
        ({"max_position_embeddings": 32_768, "rope_scaling": YARN}, 131_072),
        ({"max_position_embeddings": 200_000, "rope_scaling": YARN}, 200_000),
        ({"max_position_embeddings": 8192, "rope_parameters": {"rope_type": "yarn", "factor": 2}}, 16_384),
        ({"rope_scaling": {"type": "mrope", "factor": 4}}, 32_768),
    ],
)
def test_the_context_counts_yarn_in(text: dict[str, Any], tokens: int) -> None:
    assert context_length(text) == tokens


def test_yarn_has_its_published_magnitude() -> None:
    assert read_yarn({"rope_scaling": YARN}) == Yarn(4.0, 32_768)
    assert Yarn(4.0, 32_768).magnitude == pytest.approx(1.138629)  # 0.1 ln(4) + 1
    assert Yarn(4.0, 32_768, attention_factor=1.0).magnitude == 1.0


@pytest.mark.parametrize(
    ("rope", "says"),
    [
        ({"rope_type": "linear", "factor": 2.0}, "rope_type is 'linear'; supported are plain M-RoPE .* and 'yarn'"),
        ({"type": "dynamic", "factor": 2.0}, "'dynamic'"),
        ({"rope_type": "longrope"}, "'longrope'"),
        ({"rope_type": "yarn"}, "YaRN has the factor None, not a positive number"),
        ({"rope_type": "yarn", "factor": 0}, "factor 0"),
        ({"rope_type": "yarn", "factor": 2, "beta_fast": "many"}, "beta_fast 'many'"),
    ],
)
def test_other_rotations_are_refused_by_name(rope: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        read_yarn({"rope_scaling": rope})


@pytest.mark.parametrize(
    "text",
    [
        {"use_sliding_window": False, "sliding_window": 64},
        {"use_sliding_window": True, "num_hidden_layers": 28, "max_window_layers": 28, "sliding_window": 64},
        {"use_sliding_window": True, "sliding_window": None},
        {"use_sliding_window": True, "sliding_window": 32_768},
    ],
)
def test_windows_that_hide_nothing_are_served(text: dict[str, Any]) -> None:
    check_windows(text)


def test_windows_that_hide_something_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"use_sliding_window, .* the window's 4096 tokens"):
        check_windows(
            {"use_sliding_window": True, "num_hidden_layers": 28, "max_window_layers": 21, "sliding_window": 4096}
        )
