"""vLLM plugin: registers our Qwen2-VL class in each of vLLM's processes, before vLLM looks up a model class.

Declared in `pyproject.toml` under `vllm.general_plugins`.
"""

import ctypes
import multiprocessing
import signal

from model_executor.checkpoint.config import ARCHITECTURE

_PR_SET_PDEATHSIG = 1


def register() -> None:
    """Register our Qwen2-VL class with vLLM. Calling it again changes nothing.

    The class itself is registered, not its name: for a name, vLLM would start a process just to inspect the class.
    """
    if multiprocessing.parent_process() is not None:
        # A process that was spawned, not forked, has nothing of what its parent arranged: it, too, ends with it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    from vllm import ModelRegistry

    from model_executor.models.qwen2_vl.model import Qwen2VL

    ModelRegistry.register_model(ARCHITECTURE, Qwen2VL)
