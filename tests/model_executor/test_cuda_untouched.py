"""Nothing asks CUDA for anything before vLLM's engine process is forked: afterwards a child could not use a device."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm")

_IMPORTS = r"""
import os, pathlib, re, traceback
from model_executor.engine import EngineSettings
from model_executor.engine_process.main import _prepare_environment
_prepare_environment(EngineSettings(), cpu=False)
{before}
import torch

touched = []

def reporting(name):
    def report(*_):
        touched.append(name + "\n" + "".join(traceback.format_stack(limit=12)))
        return 0
    return report

# A CPU build has none of CUDA's entry points; these make it pass for one that has.
package = pathlib.Path(torch.__file__).parent
sources = [*package.glob("cuda/*.py"), package / "_dynamo" / "device_interface.py"]
for name in set(re.findall(r"\b_cuda_\w+", "".join(source.read_text() for source in sources))):
    setattr(torch._C, name, reporting(name))
torch.cuda._lazy_init = reporting("_lazy_init")
torch.cuda._device_count_nvml = lambda: 1  # as NVML does, without CUDA

import model_executor.engine_process.grammar_check, model_executor.engine_process.vllm_config
import model_executor.engine_process.vllm_engine
assert torch.cuda.is_available(), "the machine does not pass for one with a GPU"
print("".join(touched))
"""


def touched(before: str = "") -> str:
    """What the host's imports ask CUDA, where the environment is prepared for a GPU and then changed by `before`."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _IMPORTS.format(before=before)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_the_host_imports_everything_without_touching_cuda() -> None:
    assert touched() == ""
    assert "_cuda_getDeviceCount" in touched('del os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"]'), "it would be seen"
