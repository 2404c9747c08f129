"""Qwen2-VL for vLLM: the vision tower, the decoder layers, their wiring, and what vLLM wants to know about media."""
