"""Programs of others' packages, run as people run them; a test is skipped where such a package is missing.

`REQUIRE_NODE=1` and `REQUIRE_EXAMPLES=1` turn the skips into failures.
"""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "clients" / "examples"
PROGRAMS = ROOT / "tests" / "clients" / "programs"
PYTHON = ROOT / ".venv-examples" / "bin" / "python"
NPM_TIMEOUT_S = 300


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


def missing(what: str, requirement: str) -> None:
    """Skip the test, or fail it where the environment requires what is missing."""
    if os.environ.get(requirement) == "1":
        pytest.fail(f"{requirement}=1, and {what}")
    pytest.skip(what)


def require_python() -> str:
    """The interpreter that has the Python packages of others."""
    if not PYTHON.exists():
        missing(f"{PYTHON.parent.parent.name} is not there: make examples", "REQUIRE_EXAMPLES")
    return str(PYTHON)


def install_javascript(parent: Path, environment: Mapping[str, str]) -> Path:
    """A folder with the JavaScript examples, the tests' own programs, and the packages both need.

    Args:
        parent: where the folder is made.
        environment: of npm, which may need a proxy to get packages.
    """
    if not shutil.which("node") or not shutil.which("npm"):
        missing("there is no Node.js with npm", "REQUIRE_NODE")
    folder = parent / "javascript"
    shutil.copytree(EXAMPLES / "javascript", folder, ignore=shutil.ignore_patterns("node_modules", "build"))
    for program in PROGRAMS.glob("*.mjs"):
        shutil.copy(program, folder)
    command = ["npm", "ci", "--no-fund", "--no-audit"]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=NPM_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        missing("npm does not get its packages in time", "REQUIRE_NODE")
    if done.returncode:
        missing(f"npm cannot get its packages: {done.stderr[-300:]}", "REQUIRE_NODE")
    return folder


async def run(*command: str, url: str, folder: Path, **variables: str) -> Done:
    """Run a command that asks the server at `url`, to its end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={**os.environ, "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "unused", **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 200)
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())
