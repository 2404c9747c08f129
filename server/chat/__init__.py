"""`/v1/chat/completions` and its preview."""
