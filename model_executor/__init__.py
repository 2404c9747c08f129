"""Qwen2-VL on vLLM: prompt processing (pure), the model, and the process that runs the engine."""

import model_executor._own_modules  # noqa: F401  # vLLM puts modules of its own under this package's name
