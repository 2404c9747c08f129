"""One small tokenizer for all training tests."""

from pathlib import Path

import pytest

from model_executor.processor.tokenizer import Tokenizer
from training.recipe import QUICK
from training.vocabulary import save_tokenizer


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(QUICK, folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return Tokenizer(tokenizer_folder)
