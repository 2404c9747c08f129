"""The directory of a checkpoint's tokenizer: its own, or one made of its list of ranks, kept for the next start."""

import hashlib
import json
import os
import tempfile
from pathlib import Path

from tokenizers import AddedToken

from model_executor.checkpoint.errors import CheckpointError
from model_executor.families.family import Family
from model_executor.processor.rank_list import build_tokenizer, read_rank_list

_FORM = "2"
"""Of what is written; another number makes old directories unused."""
_NUM_EXTRA = 205
"""Tokens of the first generation that are reserved: `<|extra_0|>` and so on."""


def tokenizer_dir(model: Path, family: Family) -> Path:
    """The directory whose `tokenizer.json` is a model's. Takes seconds when one is made.

    Args:
        model: the model's directory.
        family: the model's.

    Raises:
        CheckpointError: there is neither a `tokenizer.json` nor a list of ranks that one can be made of, or no place
            to keep it.
    """
    if (model / "tokenizer.json").is_file():
        return model
    if family.vocabulary_file is None:
        raise CheckpointError("the model has no tokenizer.json")
    source = model / family.vocabulary_file
    if not source.is_file():
        raise CheckpointError(f"the model has neither tokenizer.json nor {family.vocabulary_file}")
    digest = hashlib.sha256(source.read_bytes() + _FORM.encode()).hexdigest()[:32]
    directory = _cache() / digest
    if not directory.is_dir():
        _make(source, directory, family)
    return directory


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tessera" / "tokenizers"


def _make(source: Path, directory: Path, family: Family) -> None:
    """Write the directory, so that it is complete as soon as it is there."""
    try:
        tokenizer = build_tokenizer(read_rank_list(source), _special_tokens(family))
    except ValueError as error:
        raise CheckpointError(f"{source.name} of the model is not a list of ranks: {error}") from error
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
            made = Path(scratch) / "tokenizer"
            made.mkdir()
            tokenizer.save(str(made / "tokenizer.json"), pretty=False)
            config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
            (made / "tokenizer_config.json").write_text(json.dumps(config) + "\n")
            (made / "config.json").write_text('{"model_type": "qwen"}\n')  # vLLM looks for one next to a tokenizer
            if not directory.is_dir():  # another process may have been faster
                made.rename(directory)
    except OSError as error:
        if not directory.is_dir():
            raise CheckpointError(f"the tokenizer cannot be kept in {directory.parent}: {error.strerror}") from error


def _special_tokens(family: Family) -> list[AddedToken]:
    """In the order of their ids. Those that users may write are parts of answers, and not left out of them."""
    extra = [f"<|extra_{number}|>" for number in range(_NUM_EXTRA)]
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *extra, *family.prompt_format.user_tokens]
    names += ["<img>", "</img>", "<imgpad>"]
    return [AddedToken(name, special=name not in family.prompt_format.user_tokens, normalized=False) for name in names]
