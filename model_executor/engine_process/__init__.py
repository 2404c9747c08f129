"""The engine process, which runs vLLM: startup, requests, media files, grammar checks, statistics."""
