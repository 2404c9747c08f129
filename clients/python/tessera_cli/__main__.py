"""The client's commands: `tessera ask`, `tessera preview`, `tessera bench`.

The server's command of the same name hands these on to `main`; where only the client is installed, this is `tessera`.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from tessera_cli import COMMANDS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the process's exit status.

    Args:
        arguments: the command line after the program's name; the process's own where None.
    """
    parser = argparse.ArgumentParser(prog="tessera", description="Ask a server that speaks the OpenAI API.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    command = parser.parse_known_args(arguments)[0].command
    if find_spec("rich") is None:
        print("tessera: the command line needs the package rich: pip install 'tessera-client[cli]'", file=sys.stderr)
        return 1
    module = import_module(f"tessera_cli.{command}")
    status: int = module.main(arguments[arguments.index(command) + 1 :])  # as they were written
    return status


if __name__ == "__main__":
    sys.exit(main())
