"""vLLM plugin: registers our model classes in each of vLLM's processes, before vLLM looks up a model class.

Declared in `pyproject.toml` under `vllm.general_plugins`.
"""

import ctypes
import importlib
import multiprocessing
import signal

from model_executor.families.known import FAMILIES
from model_executor.start_failure import record_exceptions

_PR_SET_PDEATHSIG = 1


def register() -> None:
    """Register our model classes with vLLM. Calling it again changes nothing.

    The classes themselves are registered, not their names: for a name, vLLM would start a process just to inspect it.
    """
    if multiprocessing.parent_process() is not None:
        # A process that was spawned, not forked, has nothing of what its parent arranged: it, too, ends with it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    from transformers import AutoConfig
    from vllm import ModelRegistry

    from model_executor.models.qwen_vl.config import QwenVLConfig

    record_exceptions()
    AutoConfig.register(QwenVLConfig.model_type, QwenVLConfig, exist_ok=True)
    for family in FAMILIES:
        module, _, name = family.model_class.partition(":")
        ModelRegistry.register_model(family.architecture, getattr(importlib.import_module(module), name))
