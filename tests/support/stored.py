"""What the store of uploaded files leaves on disk."""

from pathlib import Path


def left(folder: Path) -> list[str]:
    """Everything on disk besides the lock and empty tenants."""
    return sorted(path.name for path in (folder / "files").glob("*/*"))
