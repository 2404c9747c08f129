"""The tests do not read the environment of who runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXPORTED = {
    "TESSERA_API_KEY": "a-developers-key",
    "tessera_log_level": "nonsense",
    "OPENAI_API_KEY": "another-key",
    "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "all_proxy": "http://127.0.0.1:9",
    "SSL_CERT_FILE": "/nowhere",
    "HF_HUB_OFFLINE": "nonsense",
    "COLUMNS": "20",
}
TESTS = ("tests/server/ops/test_models.py", "tests/clients/test_uploads.py")


@pytest.mark.slow
def test_tests_pass_whatever_is_exported() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--quiet", "-p", "no:cacheprovider", *TESTS],
        cwd=ROOT, env={**os.environ, **EXPORTED}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
