"""Key files as an operator writes them."""

from pathlib import Path

from server.auth.api_keys import hash_key


def entry(name: str, key: str, **limits: int) -> str:
    lines = [
        f'name = "{name}"',
        f'sha256 = "{hash_key(key)}"',
        *(f"{limit} = {most}" for limit, most in limits.items()),
    ]
    return "\n".join(["[[key]]", *lines, ""])


def write(file: Path, *entries: str) -> None:
    """Replace the file as careful editors do, so that the change shows whatever the clock's grain."""
    new = file.with_suffix(".new")
    new.write_text("\n".join(entries), "utf-8")
    new.replace(file)
