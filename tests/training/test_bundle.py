"""The checkpoint in the repository is whole, and is what its card says."""

import hashlib
from pathlib import Path

import pytest

import training
from training.export import HASHES

BUNDLE = Path(training.__file__).parent / "bundle"
pytestmark = pytest.mark.skipif(not BUNDLE.is_dir(), reason="no model has been bundled")


def test_every_file_has_its_hash() -> None:
    listed = dict(reversed(line.split("  ")) for line in (BUNDLE / HASHES).read_text().splitlines())
    assert set(listed) == {path.name for path in BUNDLE.iterdir()} - {HASHES}
    for name, digest in listed.items():
        assert hashlib.sha256((BUNDLE / name).read_bytes()).hexdigest() == digest
