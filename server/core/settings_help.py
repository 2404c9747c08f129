"""`tessera serve --help`, and flags that are misspelt. Both derive from the declarations of the settings."""

import difflib
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from server.core.settings import Declaration, SettingsError, declarations

_HELP_FLAGS = ("-h", "--help")
_MAX_COLUMNS = 100
_INDENT = " " * 6


def wants_help(flags: Sequence[str]) -> bool:
    """Whether the command line asks for help."""
    return any(flag in _HELP_FLAGS for flag in flags)


def help_text(columns: int | None = None) -> str:
    """All settings by section: flag, default, what it does.

    Args:
        columns: width of the terminal; the real one where None.
    """
    width = min(_MAX_COLUMNS, columns or shutil.get_terminal_size().columns)
    lines = [
        "usage: tessera serve [--FLAG VALUE ...]",
        "",
        "Serve a model over HTTP. Each flag is also an environment variable: --media.num-workers is",
        "TESSERA_MEDIA__NUM_WORKERS.",
    ]
    section = None
    for declared in declarations():
        if declared.path[:-1] != section:
            section = declared.path[:-1]
            lines += ["", f"{'.'.join(section) or 'server'}:"]
        lines.append(f"  {declared.flag}{_default(declared)}")
        lines += textwrap.wrap(declared.description, width, initial_indent=_INDENT, subsequent_indent=_INDENT)
    return "\n".join(lines)


def refuse_unknown_flags(flags: Sequence[str]) -> None:
    """Check the names of flags; their values are checked with the settings.

    Raises:
        SettingsError: there is no such flag; the text proposes the closest one.
    """
    known = {declared.flag for declared in declarations()}
    sections = {f"--{declared.path[0]}" for declared in declarations() if len(declared.path) > 1}
    for flag in flags:
        name = flag.partition("=")[0]
        if len(name) > 2 and name.startswith("--") and name not in known | sections:
            raise SettingsError(f"There is no flag {flag.partition('=')[0]}.{_proposal(name, known)}")


def _proposal(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Is {close[0]} meant?" if close else " `tessera serve --help` lists all flags."


def _default(declared: Declaration) -> str:
    value: Any = declared.default
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"  (default: {str(value).lower()})"
    if isinstance(value, int) and declared.path[-1].endswith("_bytes") and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"  (default: {value}, which is {_size(value)})"
    return f"  (default: {value if isinstance(value, int | float | str | Path) and value != '' else 'none'})"


def _size(num_bytes: int) -> str:
    return f"{num_bytes >> 30} GiB" if num_bytes % (1 << 30) == 0 else f"{num_bytes >> 20} MiB"
