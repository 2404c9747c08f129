"""The command `tessera`.

    tessera serve [--port 8000] [--model FOLDER_OR_HUB_ID] [...]

`tessera serve --help` lists every setting; each is also an environment variable (`TESSERA_PORT`).
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version

from server.settings import SettingsError, load_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the process's exit status.

    Args:
        arguments: the command line after the program's name; the process's own where None.
    """
    parser = argparse.ArgumentParser(prog="tessera", description="Serve Qwen2-VL behind the OpenAI API.")
    parser.add_argument("--version", action="version", version=f"tessera {version('tessera-serve')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("serve", help="serve a model over HTTP", add_help=False)
    _, flags = parser.parse_known_args(arguments)
    try:
        settings = load_settings(flags)
    except SettingsError as error:
        print(f"tessera: {error}", file=sys.stderr)
        return 2
    from server.keys import KeyFileError  # after the settings, so that --help is quick
    from server.serve import ListenError, serve

    try:
        return serve(settings)
    except (KeyFileError, ListenError) as error:
        print(f"tessera: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
