"""Qwen2-VL for vLLM: the vision tower, the decoder layers, the model, and its multimodal processing interface."""
