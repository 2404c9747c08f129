"""The process that runs vLLM."""
