"""Pictures and clips, from URLs to patches the engine reads; `service.py` is what the rest of the server uses."""
