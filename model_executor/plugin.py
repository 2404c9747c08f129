"""vLLM plugin: registers our Qwen2-VL class in each of vLLM's processes, before vLLM looks up a model class.

Declared in `pyproject.toml` under `vllm.general_plugins`.
"""

from model_executor.checkpoint.config import ARCHITECTURE


def register() -> None:
    """Register our Qwen2-VL class with vLLM. Calling it again changes nothing.

    The class itself is registered, not its name: for a name, vLLM would start a process just to inspect the class.
    """
    from vllm import ModelRegistry

    from model_executor.models.qwen2_vl.model import Qwen2VL

    ModelRegistry.register_model(ARCHITECTURE, Qwen2VL)
