"""The M-RoPE operator and its bodies."""
