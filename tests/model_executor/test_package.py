"""The package keeps its name, which vLLM gives to modules of its own as well."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

WITHOUT_EDITABLE_FINDER = """
import sys, types
import model_executor as package
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in f"{finder} {finder.__class__}".lower()]
"""
"""That of an editable installation finds everything, and so hides what happens in a plain one."""

ANOTHER = """
other = sys.modules["model_executor"] = types.ModuleType("other")
other.__path__ = []
import model_executor.kernels.build
assert model_executor is package
sys.modules["model_executor"] = other
from model_executor.processor.geometry import Grid
from model_executor.processor import geometry
assert sys.modules["model_executor"] is package and not hasattr(other, "geometry")
try:
    import model_executor.nothing
except ModuleNotFoundError:
    print("as it should be")
"""

VLLM = """
import vllm.config.speculative as taken
dir(taken.me_quant)
assert sys.modules["model_executor"] is not package  # else the finder is not needed any more
import model_executor.engine_process.grammar_check
assert sys.modules["model_executor"] is package
print("as it should be")
"""


def run(code: str) -> str:
    command = [sys.executable, "-c", WITHOUT_EDITABLE_FINDER + code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_finds_its_modules_while_another_one_has_its_name() -> None:
    assert run(ANOTHER) == "as it should be\n"


@pytest.mark.engine
@pytest.mark.slow
def test_finds_its_modules_after_vllm_has_taken_its_name() -> None:
    assert run(VLLM).endswith("as it should be\n")
