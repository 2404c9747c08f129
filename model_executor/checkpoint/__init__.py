"""What a checkpoint directory holds: configuration, adapters, quantization."""
