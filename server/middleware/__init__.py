"""ASGI middleware, one per module; `server/app.py` defines their order."""
