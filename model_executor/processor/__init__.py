"""From messages and media sizes to token ids and positions; pure, without torch."""
