"""Qwen2.5-VL for vLLM: the vision tower with windows, and the model with it."""
