"""The documents' examples, run as they stand against the server of their own first lines.

Blocks marked `python` run in order in one namespace per page, those marked `sh` in a shell; all others are output, or
set a machine up. The address is the only thing that is changed.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.serving import RunningServer

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "clients/python/README.md", ROOT / "docs/quickstart.md"]
ADDRESS = "http://127.0.0.1:8000"
_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in _BLOCK.findall(page.read_text("utf-8")) if kind == language]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_examples_run(bundled_server: RunningServer, page: Path) -> None:
    code = "\n".join(blocks(page, "python"))
    assert ADDRESS in code
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code.replace(ADDRESS, bundled_server.url)],
        capture_output=True, text=True, timeout=300, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("block", [block for page in PAGES for block in blocks(page, "sh")])
def test_shell_examples_run(bundled_server: RunningServer, block: str) -> None:
    command = f'tessera() {{ "{sys.executable}" -m server "$@"; }}'
    lines = ["set -e -o pipefail", f"export OPENAI_BASE_URL={bundled_server.url}/v1", command]
    done = subprocess.run(
        ["bash", "-c", "\n".join([*lines, block])], capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= len(block.strip().splitlines())
