"""The one command `tessera`: client commands load nothing of the server, and serving loads nothing of the client."""

import subprocess
import sys

import pytest

from tests.clients.conftest import tessera
from tests.support.programs import ROOT


@pytest.mark.parametrize(
    ("arguments", "foreign"),
    [
        (["ask", "--help"], {"fastapi", "uvicorn", "pydantic_settings", "server.core.settings", "model_executor"}),
        # rich is not among these: httpx loads it wherever it is installed.
        (["serve", "--help"], {"openai", "tessera_client", "tessera_cli.ask"}),
        (["doctor", "--help"], {"openai", "tessera_client", "tessera_cli.ask", "torch"}),
    ],
)
def test_a_command_loads_what_it_needs(arguments: list[str], foreign: set[str]) -> None:
    code = (
        "import sys\nfrom server.__main__ import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        f"print(sorted({foreign!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.stderr.strip().splitlines()[-1] == "[]"


async def test_help_names_all_commands() -> None:
    done = await tessera("--help")
    for command in ("serve", "doctor", "ask", "preview", "bench"):
        assert f"  {command} " in done.out
        assert f"tessera {command}" in (await tessera(command, "--help")).out


def test_the_client_works_where_the_server_is_not_installed() -> None:
    code = (
        "import sys\nsys.modules.update(server=None, model_executor=None, training=None)\n"
        "import tessera_client\nfrom tessera_cli.__main__ import main\nmain(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd="/")
    assert done.returncode == 0 and "ask" in done.stdout, done.stderr
