"""Qwen2-VL for vLLM: the vision tower, and the model with it."""
