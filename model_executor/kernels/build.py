"""Compile `csrc/*.cpp` into `_native.so` beside this file, ahead of time.

Run: `python -m model_executor.kernels.build` (setup and the package build do it). Nothing is compiled while serving.
Does nothing when the library already holds these sources, compiled this way. Without a compiler it says so and is
content, because the plain-torch body serves; with `REQUIRE_KERNELS=1` it fails.

The library is written against torch's stable interface: one build serves torch from `TORCH_AT_LEAST` on, any Python,
and any machine of the architecture.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

FOLDER = Path(__file__).parent
SOURCES = (FOLDER / "csrc" / "mrope.cpp", FOLDER / "csrc" / "tower.cpp")
LIBRARY = "_native.so"
TORCH_AT_LEAST = (2, 10)
FLAGS = ["-std=c++20", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra"]
FLAGS += ["-ffp-contract=off"]  # a fused multiply-add would differ from the reference body in the last bit


class KernelBuildError(Exception):
    """The library could not be built; the message says what is missing or what the compiler said."""


def build(folder: Path = FOLDER) -> bool:
    """Make `_native.so` in a folder, unless it is there and current.

    Returns:
        Whether anything was compiled.

    Raises:
        KernelBuildError: there is no compiler or no torch, or the compiler failed.
    """
    target = folder / LIBRARY
    key = build_key()
    if target.is_file() and f"tessera-build-key:{key}\0".encode() in target.read_bytes():
        return False
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    compiler = next(filter(None, map(shutil.which, names)), None)
    if compiler is None:
        raise KernelBuildError(f"there is no C++ compiler {' or '.join(names)} (on Debian: apt-get install g++)")
    torch = find_spec("torch")
    if torch is None or torch.origin is None:
        raise KernelBuildError("torch, whose headers are needed, is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{os.getpid()}.{LIBRARY}"  # renamed when whole: another process may load at any time
    command = _command(compiler, Path(torch.origin).parent, key, unfinished)
    try:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise KernelBuildError(f"the compiler failed: {' '.join(command)}\n{done.stderr}")
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return True


def build_key() -> str:
    """What the library is made from: sources, flags, interface and architecture, as 16 hex digits."""
    texts = [source.read_text("utf-8") for source in SOURCES]
    facts = [*texts, *FLAGS, str(TORCH_AT_LEAST), platform.system(), platform.machine()]
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:16]


def _command(compiler: str, torch: Path, key: str, target: Path) -> list[str]:
    major, minor = TORCH_AT_LEAST
    interface = f"-DTORCH_TARGET_VERSION=0x{major:02x}{minor:02x}000000000000"
    definitions = [interface, f'-DTESSERA_BUILD_KEY="{key}"']
    linking = [f"-L{torch / 'lib'}", "-ltorch_cpu", "-o", str(target)]
    return [compiler, *FLAGS, *definitions, "-isystem", str(torch / "include"), *map(str, SOURCES), *linking]


def main(folder: Path = FOLDER) -> int:
    """Build, say in a line what was done, and return the exit status: 1 only where the library is required."""
    try:
        built = build(folder)
    except KernelBuildError as error:
        print(f"kernels: not compiled, plain torch runs instead: {error}", file=sys.stderr)
        return int(os.environ.get("REQUIRE_KERNELS") == "1")
    print(f"kernels: {'compiled' if built else 'up to date'}: {folder / LIBRARY}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
