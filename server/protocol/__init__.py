"""The wire models of the OpenAI API; plain pydantic, knowing nothing of the rest of the project."""
