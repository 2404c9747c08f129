"""The command `tessera`: dispatches to `serve`, `doctor` and the client's commands.

    tessera serve [--port 8000] [--model DIRECTORY_OR_HUB_ID] [...]
    tessera doctor
    tessera ask "What is this?" photo.jpg        and the other commands of `tessera_cli`

`tessera serve --help` lists every setting; each is also an environment variable (`TESSERA_PORT`). `serve` imports
nothing of the client, and the client's commands import nothing of the server.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from tessera_cli import COMMANDS as CLIENT_COMMANDS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the process's exit status.

    Args:
        arguments: the command line after the program's name. None: the process's own.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(
        prog="tessera", description="Serve Qwen-VL, Qwen2-VL and Qwen2.5-VL with the OpenAI API, and query it."
    )
    parser.add_argument("--version", action="version", version=f"tessera {version('tessera-serve')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("serve", help="serve a model over HTTP", add_help=False)
    commands.add_parser("doctor", help="check this machine and ask a test question", add_help=False)
    for name, summary in CLIENT_COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    command = parser.parse_known_args(arguments)[0].command
    rest = arguments[arguments.index(command) + 1 :]  # as they were written
    match command:
        case "serve":
            return _serve(rest)
        case "doctor":
            from server.cli.doctor import main as doctor

            return doctor(rest)
    from tessera_cli.__main__ import main as client

    return client(arguments)


def _serve(flags: Sequence[str]) -> int:
    from server.core.settings import SettingsError, load_settings
    from server.core.settings_help import help_text, refuse_unknown_flags, wants_help

    if wants_help(flags):
        print(help_text())
        return 0
    try:
        refuse_unknown_flags(flags)
        settings = load_settings(flags)
    except SettingsError as error:
        print(f"tessera: {error}", file=sys.stderr)
        return 2
    from server.auth.api_keys import KeyFileError  # after the settings, so that --help is quick
    from server.core.shared_state import SharedStateError
    from server.serve import ListenError, serve

    try:
        return serve(settings)
    except (KeyFileError, ListenError, SharedStateError) as error:
        print(f"tessera: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
