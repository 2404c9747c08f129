"""Where the server is and who asks, from flags and the `openai` package's own environment variables."""

import argparse
import difflib
import os
import sys
from collections.abc import Callable
from typing import NoReturn

import openai

NO_KEY = "unused"
"""Sent where none is given; a server that needs none ignores it."""
DEFAULT_URL = "http://127.0.0.1:8000/v1"

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


class UsageError(Exception):
    """A command line that makes no sense together with what is there; the text says why."""


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line, and for a misspelt flag which one may be meant."""

    def error(self, message: str) -> NoReturn:
        """Say it and leave with the status of a wrong command line."""
        unknown = message.removeprefix("unrecognized arguments: ").split()[0].partition("=")[0]
        close = difflib.get_close_matches(unknown, self._option_string_actions, n=1)
        if unknown.startswith("--") and message.startswith("unrecognized"):
            message = f"there is no flag {unknown}" + (f"; is {close[0]} meant?" if close else "")
        self.exit(2, f"{self.prog}: {message}\n`{self.prog} --help` shows how it is used.\n")


def add_connection(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """The flags `--url` (with `several` a list), `--api-key`, `--model` and `--timeout`."""
    flags = parser.add_argument_group("server")
    url = os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL
    if several:
        text = f"servers that are asked in turn (default: $OPENAI_BASE_URL or {url})"
        flags.add_argument("--url", nargs="+", default=[url], help=text)
    else:
        flags.add_argument("--url", default=url, help="default: $OPENAI_BASE_URL or %(default)s")
    flags.add_argument("--api-key", metavar="KEY", help="default: $OPENAI_API_KEY")
    flags.add_argument("--model", help="default: the first one the server has")
    flags.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="of one request (default: 600)")


def connected(arguments: argparse.Namespace) -> openai.OpenAI:
    """A client for the flags of `add_connection`."""
    return openai.OpenAI(base_url=base_url(arguments.url), api_key=api_key(arguments), timeout=arguments.timeout)


def base_url(url: str) -> str:
    """The URL with its `/v1`, which people leave out."""
    url = url.rstrip("/")
    return url if url.endswith("/v1") or url.count("/") > 2 else f"{url}/v1"


def api_key(arguments: argparse.Namespace) -> str:
    """The key to send; a server that needs none ignores it."""
    return arguments.api_key or os.environ.get("OPENAI_API_KEY") or NO_KEY


def model_of(client: openai.OpenAI, arguments: argparse.Namespace) -> str:
    """The model to ask: the one of the flag, else the server's first."""
    if arguments.model:
        return str(arguments.model)
    models = client.models.list().data
    if not models:
        raise UsageError("the server lists no model; name one with --model")
    return models[0].id


def run(parser: argparse.ArgumentParser, command: Callable[[], int]) -> int:
    """Run a command; what goes wrong becomes a sentence on stderr and an exit status."""
    try:
        return command()
    except UsageError as error:
        parser.error(str(error))
    except openai.OpenAIError as error:
        print(f"tessera: {sentence(error)}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def sentence(error: openai.OpenAIError) -> str:
    """What went wrong, for a person."""
    if isinstance(error, openai.APITimeoutError):
        return "the server did not answer in time (--timeout)"
    if isinstance(error, openai.APIConnectionError):
        if str(error) != "Connection error.":
            return str(error)
        return f"no server answers at {error.request.url.copy_with(path='/')}: `tessera serve` starts one"
    if isinstance(error, openai.AuthenticationError):
        if error.request.headers.get("authorization") == f"Bearer {NO_KEY}":
            return "this server asks for a key: --api-key KEY, or the variable OPENAI_API_KEY"
        return "the server does not accept this key (--api-key, OPENAI_API_KEY)"
    if isinstance(error, openai.APIStatusError):
        body = error.body if isinstance(error.body, dict) else {}
        message = body.get("message") or error.message
        return f"{message} (status {error.status_code})"
    return str(error)
