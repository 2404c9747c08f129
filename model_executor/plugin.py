"""The entry point vLLM calls in each of its processes, before it looks up a model class.

Declared in `pyproject.toml` under `vllm.general_plugins`.
"""

from model_executor.checkpoint.config import ARCHITECTURE


def register() -> None:
    """Make our Qwen2-VL the one vLLM runs. Calling it again changes nothing.

    The class itself is registered, not its name: a name would make vLLM start a process just to look at it.
    """
    from vllm import ModelRegistry

    from model_executor.models.qwen2_vl.model import Qwen2VL

    ModelRegistry.register_model(ARCHITECTURE, Qwen2VL)
