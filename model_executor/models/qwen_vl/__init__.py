"""Qwen-VL for vLLM: the vision tower with its resampler, the rotary embedding with a growing base, the model."""
