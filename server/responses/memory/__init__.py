"""What the Responses API remembers: earlier responses, their items, and conversations."""
