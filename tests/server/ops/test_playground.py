"""The page's files: whole, from here alone, under a strict policy, and open to everybody."""

import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path, PurePosixPath
from urllib.parse import urljoin

from server.ops.playground_files import HEADERS, PAGE_DIR, read_page
from tests.support.error_body import check_error
from tests.support.world import OpenWorld, ServerFixture

NAMED = re.compile(
    r"""(?:href|src)="(?P<html>[^"#]+)" | (?:from|import|URL) [\s(]* "(?P<js>\.[^"]+)" | url\("(?P<css>[^"]+)"\)""",
    re.VERBOSE,
)
OUR_OWN = [
    path for path in PAGE_DIR.rglob("*") if path.suffix in (".html", ".css", ".js") and "vendor" not in path.parts
]


def named_in(path: str, text: str) -> set[str]:
    """Paths of the files that a file names, as a browser resolves them."""
    return {urljoin(path, match[match.lastgroup or 0]) for match in NAMED.finditer(text)}


async def test_the_page_is_html_under_a_strict_policy(world: ServerFixture) -> None:
    response = await world.client.get("/")
    assert response.status_code == 200 and response.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'" and policy["script-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_every_file_that_is_named_is_served_and_no_other(world: ServerFixture) -> None:
    seen: set[str] = set()
    todo = {"/"}
    while todo:
        path = todo.pop()
        seen.add(path)
        response = await world.client.get(path)
        assert response.status_code == 200, path
        assert all(response.headers[name] == value for name, value in HEADERS.items())
        if PurePosixPath(path).suffix in ("", ".js", ".css") and "/vendor/" not in path:
            todo |= named_in(path, response.text) - seen
    assert seen == set(read_page())


async def test_a_current_copy_is_not_sent_again(world: ServerFixture) -> None:
    first = await world.client.get("/playground/js/main.js")
    again = await world.client.get("/playground/js/main.js", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = await world.client.get("/", headers={"if-none-match": first.headers["etag"]})
    assert other.status_code == 200


async def test_the_page_needs_no_key_and_opens_nothing_else(open_world: OpenWorld) -> None:
    async with open_world(api_key="secret") as world:
        for path in read_page():
            assert (await world.client.get(path)).status_code == 200
        for path in ("/v1/models", "/playground/other.js", "/playground/"):
            check_error(await world.client.get(path), 401, code="invalid_api_key")
        check_error(await world.client.post("/", json={}), 405, code="method_not_allowed")


def test_markup_has_no_code_and_nothing_comes_from_elsewhere() -> None:
    for path in OUR_OWN:
        text = path.read_text("utf-8").replace('"http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?://|(?<!:)//[a-z]+\.", text), path
        if path.suffix == ".html":
            assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=|javascript:", text)


def test_vendored_files_are_those_of_the_table_unchanged() -> None:
    table = (PAGE_DIR / "vendor" / "README.md").read_text("utf-8")
    sums = dict(re.findall(r"\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|", table))
    found = {
        path.relative_to(PAGE_DIR / "vendor").as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in (PAGE_DIR / "vendor").rglob("*")
        if path.is_file() and path.name not in ("LICENSE", "README.md")
    }
    assert found == sums
    assert all((PAGE_DIR / "vendor" / name).with_name("LICENSE").is_file() for name in found)


def test_the_package_holds_the_page() -> None:
    code = (
        "from setuptools.dist import Distribution\n"
        "dist = Distribution(); dist.parse_config_files(['pyproject.toml'])\n"
        "build = dist.get_command_obj('build_py'); build.ensure_finalized(); build.manifest_files = {}\n"
        "print(*build.find_data_files('clients', 'clients'), sep='\\n')\n"
    )
    root = Path(__file__).parent.parent.parent.parent
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    packed = set(done.stdout.splitlines())
    assert {path.relative_to(root).as_posix() for path in PAGE_DIR.rglob("*") if path.is_file()} <= packed
