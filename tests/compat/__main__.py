"""Clients of others against a real server: `python -m tests.compat [NAME ...]`, or `make compat`.

One server is started with the bundled model and an API key. Each client is installed into an environment of its own and
used as its users use it; it finds where the server is, and its key, in the variables that the official clients read.
What is checked is the protocol: the bundled model knows shapes and colors, and follows few instructions.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from tests.compat.environment import ROOT, Client, known_clients
from tests.support.serving import RunningServer

KEY = "sk-tessera-compat"
PICTURE = ROOT / "docs" / "circle.png"
RUN_TIMEOUT_S = 1200
# Clients that would otherwise ask the network for news, prices or models, or report what they are used for.
QUIET = {
    "ANONYMIZED_TELEMETRY": "false",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DO_NOT_TRACK": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "SCARF_NO_ANALYTICS": "true",
}


@dataclass(frozen=True)
class Outcome:
    """What became of a client."""

    client: Client
    says: str
    failed: bool


def variables(client: Client, url: str, home: Path) -> dict[str, str]:
    """The environment of a client's program: the server's address and key, and a home that is thrown away."""
    kept = {name: os.environ[name] for name in ("LANG", "TERM", "SSL_CERT_FILE") if name in os.environ}
    path = [str(client.environment / "bin"), str(client.environment / "node_modules" / ".bin"), os.environ["PATH"]]
    return {
        **kept,
        **QUIET,
        "PATH": os.pathsep.join(path),
        "HOME": str(home),
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": KEY,
        "PICTURE": str(PICTURE),
    }


def command(client: Client, report: Path) -> Sequence[str]:
    """What runs a client's program, and leaves a report in JUnit's form."""
    program = client.program
    if program.suffix == ".mjs":
        copy = shutil.copy(program, client.environment)  # Node.js looks for packages beside the program
        shown = ("--test-reporter=spec", "--test-reporter-destination=stdout")
        return ["node", "--test", *shown, "--test-reporter=junit", f"--test-reporter-destination={report}", str(copy)]
    options = ("-q", "-rfEsx", "-p", "no:cacheprovider", f"--junitxml={report}")
    return [str(client.python), "-m", "pytest", *options, str(program)]


def count(report: Path) -> str:
    """How many checks there were, and what became of them, in words."""
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    parts = [f"{len(cases) - len(failed) - len(skipped)} passed"]
    parts += [f"{len(failed)} failed"] if failed else []
    parts += [f"{len(skipped)} not for this model or machine"] if skipped else []
    return ", ".join(parts)


def try_client(client: Client, url: str) -> Outcome:
    """Install a client, run its program."""
    print(f"\n== {client.name} {client.version}: {client.tried}", flush=True)
    try:
        client.install()
    except (subprocess.SubprocessError, OSError) as error:
        return Outcome(client, f"could not be installed: {error}", True)
    with TemporaryDirectory(prefix="tessera-compat-") as folder:
        report, home = Path(folder) / "report.xml", Path(folder) / "home"
        home.mkdir()
        environment = variables(client, url, home)
        try:
            code = run(command(client, report), environment, home)
            return Outcome(client, count(report), bool(code))
        except subprocess.TimeoutExpired:
            return Outcome(client, f"took longer than {RUN_TIMEOUT_S} s", True)
        except (OSError, ElementTree.ParseError) as error:
            return Outcome(client, f"left no report: {error}", True)


def run(words: Sequence[str], environment: Mapping[str, str], folder: Path) -> int:
    """Run a command in a folder, to its end; the exit status."""
    return subprocess.run(words, env=environment, cwd=folder, timeout=RUN_TIMEOUT_S).returncode


def table(outcomes: Sequence[Outcome]) -> str:
    """What is told at the end."""
    rows = [("client", "version", "tried", "outcome")]
    rows += [(outcome.client.name, outcome.client.version, outcome.client.tried, outcome.says) for outcome in outcomes]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main() -> int:
    """Try the clients that are named, or all; the exit status."""
    clients = {client.name: client for client in known_clients()}
    parser = argparse.ArgumentParser(
        prog="python -m tests.compat", description="Try clients of others against a server."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(clients)}; default: all")
    names = parser.parse_args().names
    if unknown := [name for name in names if name not in clients]:
        parser.error(f"there is no client {', '.join(unknown)}")
    with RunningServer(None, {"TESSERA_API_KEY": KEY}) as server:
        outcomes = [try_client(clients[name], server.url) for name in names or clients]
    print("\n" + table(outcomes))
    return int(any(outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
