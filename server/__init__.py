"""The HTTP process: OpenAI routes, prompt rendering and media preparation. Imports neither torch nor vllm."""
