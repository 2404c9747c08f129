"""YaRN's frequencies and magnitude against those transformers computes."""

import pytest
import torch
from transformers import Qwen2VLTextConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from model_executor.checkpoint.positions import read_yarn
from model_executor.kernels.mrope import cos_sin_table, inverse_frequencies, yarn_inverse_frequencies


@pytest.mark.parametrize(
    "changes",
    [
        {"factor": 4.0},
        {"factor": 2.0, "beta_fast": 16.0, "beta_slow": 2.0},
        {"factor": 8.0, "attention_factor": 1.1},
        {"factor": 40.0, "original_max_position_embeddings": 4096},
    ],
)
@pytest.mark.parametrize("head_dim", [64, 128])
def test_stretched_contexts_turn_as_in_transformers(changes: dict[str, float], head_dim: int) -> None:
    section = [head_dim // 8, head_dim * 3 // 16, head_dim * 3 // 16]
    rope = {
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "mrope_section": section,
        "original_max_position_embeddings": 32_768,
        **changes,
    }
    config = Qwen2VLTextConfig(
        hidden_size=2 * head_dim, num_attention_heads=2, num_key_value_heads=1, rope_parameters=rope
    )
    theirs, magnitude = ROPE_INIT_FUNCTIONS["yarn"](config, torch.device("cpu"))
    yarn = read_yarn(config.to_dict())
    assert yarn is not None
    ours = yarn_inverse_frequencies(
        head_dim,
        1e6,
        factor=yarn.factor,
        original_context=yarn.original_context,
        beta_fast=yarn.beta_fast,
        beta_slow=yarn.beta_slow,
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    assert yarn.magnitude == pytest.approx(magnitude)
    assert not torch.allclose(ours, inverse_frequencies(head_dim, 1e6))
    table = cos_sin_table(8, ours, yarn.magnitude)
    assert table[0, : head_dim // 2].tolist() == pytest.approx([magnitude] * (head_dim // 2))
