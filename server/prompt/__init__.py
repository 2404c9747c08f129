"""From messages and media to the token ids of a prompt."""
