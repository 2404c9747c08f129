"""The growing rotary base against the released model's numbers."""

import math

import pytest

from model_executor.processor.dynamic_ntk import num_raises, query_scale, raised_base

SCALES = {1: 1, 2048: 1, 2049: 3, 4096: 3, 4097: 7, 8192: 7}
"""Tokens of a prompt, and what its base is scaled by before the exponent, in Qwen-VL."""


@pytest.mark.parametrize(("num_tokens", "scale"), SCALES.items())
def test_the_base_grows_where_a_prompt_passes_the_trained_length_and_its_doubles(num_tokens: int, scale: int) -> None:
    assert raised_base(10_000, num_raises(num_tokens, 2048), 128) == pytest.approx(10_000 * scale ** (128 / 126))


@pytest.mark.parametrize("position", [0, 1, 2046, 2047])
def test_queries_within_the_trained_length_stay_as_they_are(position: int) -> None:
    assert query_scale(position, 2048) == 1


@pytest.mark.parametrize("position", [2048, 4095, 8191])
def test_queries_beyond_it_grow_with_the_logarithm(position: int) -> None:
    assert query_scale(position, 2048) == pytest.approx(math.log(position + 1, 2048))
