"""The families of models that are served, one module each; pure, so that server, engine and tools may ask the same."""
