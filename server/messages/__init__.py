"""`/v1/messages`: Anthropic's Messages API over the core that all APIs share."""
