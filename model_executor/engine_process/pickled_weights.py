"""Names and shapes of a checkpoint's tensors where it has no safetensors files: `pytorch_model*.bin`.

torch alone can read these, so it is the engine process that does; nothing but names and shapes is read.
"""

import pickle
from pathlib import Path

import torch

from model_executor.checkpoint.errors import CheckpointError
from model_executor.checkpoint.json_file import read_json
from model_executor.checkpoint.weights import check_tensors
from model_executor.families.family import Shape


def check_pickled_weights(directory: Path) -> None:
    """Check the tensors of `pytorch_model*.bin` as `check_weights` does those of safetensors, where there are none.

    Raises:
        CheckpointError: as `check_weights`, and where the directory has weights of neither kind.
    """
    if any(directory.glob("*.safetensors")):
        return
    paths = sorted(directory.glob("pytorch_model*.bin"))
    if not paths:
        raise CheckpointError("the model has no weights: neither *.safetensors nor pytorch_model*.bin")
    tensors: dict[str, tuple[Shape, str]] = {}
    for path in paths:
        try:
            file = torch.load(path, map_location="meta", weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
            raise CheckpointError(f"{path.name} of the model is cut off or no file of torch: {error}") from error
        tensors |= {name: (tuple(value.shape), str(value.dtype)) for name, value in file.items()}
    check_tensors(read_json(directory / "config.json", "the model"), tensors)
