"""The error of a model that cannot be found, fetched or read."""


class CheckpointError(Exception):
    """The model or an adapter cannot be found, fetched or understood; the text says what is wrong with which file."""
