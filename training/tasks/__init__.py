"""What the model learns to do: each module draws the samples of some tasks, and says what is right."""
