"""An environment for each client, in `.venv-compat/NAME`, made once for what it requires."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CLIENTS = Path(__file__).parent / "clients"
ENVIRONMENTS = ROOT / ".venv-compat"
INSTALL_TIMEOUT_S = 1800


@dataclass(frozen=True)
class Client:
    """A folder below `clients`: what is installed, and a program that uses it.

    `requirements.txt` is for Python and pip, `package.json` for Node.js and npm; with neither the client is in the
    environment that runs the tests. The first package that is named is the client.
    """

    name: str

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return CLIENTS / self.name

    @property
    def environment(self) -> Path:
        """Where its packages are."""
        return ENVIRONMENTS / self.name

    @property
    def requirements(self) -> Path | None:
        """The file that names its packages."""
        files = (self.folder / "requirements.txt", self.folder / "package.json")
        return next((file for file in files if file.exists()), None)

    @property
    def program(self) -> Path:
        """What is run: `checks.mjs` by Node.js, `checks.py` by pytest."""
        script = self.folder / "checks.mjs"
        return script if script.exists() else self.folder / "checks.py"

    @property
    def tried(self) -> str:
        """The first line of the program, which says what it tries."""
        return self.program.read_text("utf-8").partition("\n")[0].strip('/" ')

    @property
    def version(self) -> str:
        """Of the client's first package."""
        file = self.requirements
        if file is None:
            return "of this environment"
        if file.suffix == ".json":
            return str(next(iter(json.loads(file.read_text("utf-8"))["dependencies"].values())))
        pin = re.search(r"^[\w.\[\],-]+==(\S+)", file.read_text("utf-8"), re.MULTILINE)
        assert pin, f"{file} pins nothing"
        return pin[1]

    @property
    def python(self) -> Path:
        """The interpreter that runs `checks.py`."""
        own = self.environment / "bin" / "python"
        return own if own.exists() else Path(sys.executable)

    def install(self) -> None:
        """Make the environment, unless it is there for the same requirements.

        Raises:
            subprocess.CalledProcessError: pip or npm cannot install it.
        """
        file = self.requirements
        if file is None:
            return
        wanted = file.read_text("utf-8")
        stamp = self.environment / "installed"
        if stamp.exists() and stamp.read_text("utf-8") == wanted:
            return
        self.environment.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".json":
            (self.environment / "package.json").write_text(wanted, "utf-8")
            self._do("npm", "install", "--no-package-lock", "--no-fund", "--no-audit", "--loglevel=error")
        else:
            self._do(sys.executable, "-m", "venv", str(self.environment))
            install = (str(self.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
            self._do(*install, "--requirement", str(file), "pytest", "pytest-asyncio")
        stamp.write_text(wanted, "utf-8")

    def _do(self, *command: str) -> None:
        subprocess.run(command, cwd=self.environment, check=True, timeout=INSTALL_TIMEOUT_S)


def known_clients() -> list[Client]:
    """All clients there are."""
    return [
        Client(folder.name)
        for folder in sorted(CLIENTS.iterdir())
        if (folder / "checks.py").exists() or (folder / "checks.mjs").exists()
    ]
