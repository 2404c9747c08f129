"""Rules of the tree that no single module can keep: imports point one way, files stay small, docs do not drift.

Which folder may import which is said by the contracts of `import-linter` in `pyproject.toml`.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("server", "model_executor", "clients", "training")
SOURCES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
DOCUMENTS = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    *(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md")),
]
MAX_LINES = 500

HEAVY = {"torch", "vllm", "triton", "transformers"}


def test_files_stay_readable() -> None:
    files = [*SOURCES, *(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))]
    assert [str(path) for path in files if len((ROOT / path).read_text("utf-8").splitlines()) > MAX_LINES] == []


@pytest.mark.parametrize(
    "module", ["server.__main__", "server.app", "server.media.workers.pool", "model_executor.client.engine_client"]
)
def test_http_process_and_media_workers_load_no_engine(module: str) -> None:
    code = f"import sys, {module}; print(sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_media_workers_load_no_web_framework() -> None:
    modules = "server.media.workers.pool, server.media.decode.video, server.media.decode.image"
    code = f"import sys, {modules}; print('fastapi' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr


def test_imports_keep_to_the_contracts() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run([*command, "--no-cache"], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("tool", ["tools.settings_docs", "tools.error_docs", "tools.media_docs"])
def test_generated_documentation_is_current(tool: str) -> None:
    done = subprocess.run([sys.executable, "-m", tool, "--check"], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_named_in_documents_exist(document: str) -> None:
    text = (ROOT / document).read_text("utf-8")
    named = set(re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.\w+|[\w-]+\.(?:py|toml|md|yaml|sh))`", text))
    missing = sorted(name for name in named if not (ROOT / name).exists() and not name.startswith("models/"))
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    page = ROOT / document
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


def test_every_route_is_in_its_document() -> None:
    code = (
        "from server.app import create_app\nfrom server.core.settings import Settings\n"
        "paths = create_app(Settings(), lambda: None).openapi()['paths']\n"
        "print('\\n'.join(f'{method.upper()} {path}' for path, methods in paths.items() for method in methods))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    served = set(done.stdout.splitlines())
    told = set(re.findall(r"^\| `([A-Z]+ /\S*)`", (ROOT / "docs" / "routes.md").read_text("utf-8"), re.MULTILINE))
    assert served and told == served, done.stderr
