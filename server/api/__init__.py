"""HTTP conventions that every feature shares: base models, request bodies, validation, OpenAPI, SSE."""
