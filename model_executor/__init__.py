"""Qwen2-VL on vLLM: geometry, tokens and positions (pure), the model, and the process that runs the engine."""
