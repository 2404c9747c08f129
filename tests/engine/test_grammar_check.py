"""Grammars are tried of clients in turn, never to the end for nobody, and go on being tried when a process is lost."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("name", ["turns", "bound", "losses", "end"])
def test_scenario(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.grammar_scenarios", name],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-3000:]
