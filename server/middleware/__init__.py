"""ASGI middleware, one per module; `server/app.py` says in which order it runs."""
