"""Rules of the tree that no single module can keep: imports point one way, files stay small, docs do not drift."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
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

SEAM = (
    "model_executor.engine",
    "model_executor.fair_queue",
    "model_executor.privacy",
    "model_executor.processor",
    "model_executor.checkpoint",
    "model_executor.client",
)
PURE = ("model_executor.engine", "model_executor.processor", "model_executor.checkpoint", "model_executor.cpu")
HEAVY = {"torch", "vllm", "triton", "transformers"}
MAY_IMPORT_VLLM = re.compile(r"model_executor/plugin\.py|model_executor/(engine_process|models|kernels)/.*")


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names of everything a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(names)


def of_project(path: Path) -> Iterator[str]:
    """Modules of this project that a file imports, as dotted paths of existing files or packages."""
    for name in imports(path):
        place = ROOT / name.replace(".", "/")
        if name.split(".")[0] in PACKAGES and (place.is_dir() or place.with_suffix(".py").is_file()):
            yield name


def wrong_imports(path: Path) -> Iterator[str]:
    """What a file imports against the rules."""
    package = path.parts[0]
    roots = {name.split(".")[0] for name in imports(path)}
    for name in of_project(path):
        target = name.split(".")[0]
        if target == package or name == target:
            continue
        if package == "server":
            allowed = name.startswith(SEAM)
        elif package == "training":
            allowed = name.startswith(PURE) or target == "server"
        else:
            allowed = False
        if not allowed:
            yield name
    if "vllm" in roots and not MAY_IMPORT_VLLM.fullmatch(path.as_posix()):
        yield "vllm"
    if package in ("server", "clients"):
        yield from roots & HEAVY
    if package == "clients":  # HTTP only, and installed without the server
        yield from roots & set(PACKAGES)
    elif path.as_posix() != "server/__main__.py":
        yield from roots & {"tessera_client", "tessera_cli"}
    if path.parts[:2] == ("server", "media") or path.as_posix() in (
        "server/chat/serving.py",
        "model_executor/processor/chatml.py",
    ):
        yield from roots & {"fastapi"}
    if path.parts[:2] == ("server", "protocol"):
        yield from (name for name in of_project(path) if not name.startswith("server.protocol"))


def test_imports_point_one_way() -> None:
    assert SOURCES
    assert [f"{path} imports {name}" for path in SOURCES for name in wrong_imports(path)] == []


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


@pytest.mark.parametrize("tool", ["tools.settings_docs", "tools.error_docs"])
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
