"""Image and video decoders: bytes to pixels. Runs in the sandboxed worker processes only; raises `MediaError`."""
