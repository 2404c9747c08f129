"""The checkpoint in the repository is whole, and is what its card says."""

import hashlib
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

import training
from model_executor.checkpoint.config import read_checkpoint
from model_executor.processor.tokenizer import Tokenizer
from training.cases import cases
from training.checkpoint_files import config
from training.evaluate import measure_in_process
from training.export import HASHES
from training.model import Model
from training.recipe import FULL

LEAST = {"color": 0.85, "position": 0.85, "number": 0.9, "grounding": 0.8, "order": 0.8, "talk": 0.85}
"""Lower bounds on 20 cases, well below what the card says."""
BUNDLE = Path(training.__file__).parent / "bundle"
pytestmark = pytest.mark.skipif(not BUNDLE.is_dir(), reason="no model has been bundled")


def test_every_file_has_its_hash() -> None:
    lines = (BUNDLE / HASHES).read_text().splitlines()
    listed = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    assert set(listed) == {path.name for path in BUNDLE.iterdir()} - {HASHES}
    for name, digest in listed.items():
        assert hashlib.sha256((BUNDLE / name).read_bytes()).hexdigest() == digest


def test_the_server_reads_it_and_its_facts_are_the_recipes() -> None:
    checkpoint = read_checkpoint(BUNDLE)
    assert checkpoint.max_model_len == FULL.shape.max_position_embeddings
    written = json.loads((BUNDLE / "config.json").read_text())
    assert written == config(FULL.shape, Tokenizer(BUNDLE))


@pytest.mark.slow
def test_the_bundled_weights_answer_held_out_questions() -> None:
    model = Model(FULL.shape)
    model.load_state_dict(load_file(BUNDLE / "model.safetensors"))
    for task, least in LEAST.items():
        asked = list(cases(FULL.stages[-1], task, 20))
        measured = measure_in_process(model, Tokenizer(BUNDLE), FULL.limits, asked)
        assert measured.share >= least, task
