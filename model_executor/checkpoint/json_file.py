"""Reading the small JSON files of checkpoints and adapters."""

import json
from pathlib import Path
from typing import Any

from model_executor.checkpoint.errors import CheckpointError


def read_json(path: Path, owner: str, *, optional: bool = False) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: the file.
        owner: what the file belongs to, for errors: `the model`.
        optional: return an empty object when there is no such file.

    Raises:
        CheckpointError: the file is missing, not JSON, or not an object.
    """
    if optional and not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{owner} has no {path.name}") from error
    except ValueError as error:
        raise CheckpointError(f"{path.name} of {owner} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path.name} of {owner} is not a JSON object")
    return value
