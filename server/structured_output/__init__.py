"""Response formats: JSON schemas and regular expressions as grammars the engine enforces."""
