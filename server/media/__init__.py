"""Images and videos: from URLs to the patches that the engine reads. `preprocessor.py` is the one entry."""
