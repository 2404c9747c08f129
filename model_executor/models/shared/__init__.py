"""What the families share in vLLM: decoder layers, tower parts, the model around both, the processing interface."""
