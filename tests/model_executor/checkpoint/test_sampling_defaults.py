"""The sampling values of `generation_config.json`: read where a request could say the same, refused otherwise."""

from typing import Any

import pytest
from transformers import GenerationConfig

from model_executor.checkpoint.errors import CheckpointError
from model_executor.checkpoint.sampling_defaults import read_sampling_defaults

RELEASE = {"temperature": 0.01, "top_p": 0.001, "top_k": 1, "repetition_penalty": 1.05}


def test_reads_what_transformers_writes() -> None:
    written = GenerationConfig(do_sample=True, eos_token_id=[3], **RELEASE).to_diff_dict()  # type: ignore[no-untyped-call]
    assert read_sampling_defaults(written) == RELEASE
    assert read_sampling_defaults({"eos_token_id": 3, "temperature": None, "do_sample": False}) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [("temperature", "0.5"), ("temperature", -1), ("temperature", True), ("top_p", 0), ("top_k", 1.5), ("min_p", 2)],
)
def test_refuses_what_no_request_may_have(name: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=name):
        read_sampling_defaults({name: value})
