"""What the kernel refuses a confined process, tried in processes of their own; and what is said where it cannot."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from server.media.workers.sandbox import MACHINES, SandboxError, enter_sandbox

_CONFINED = """
import ctypes, os, socket, subprocess, threading
from server.media.workers.sandbox import enter_sandbox
pair = socket.socketpair()
enter_sandbox()
libc = ctypes.CDLL(None, use_errno=True)

def try_it(name, attempt):
    try:
        attempt()
    except OSError as error:
        print(name, error.errno)
    else:
        print(name, "done")

for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK):
    try_it(family.name, lambda: socket.socket(family))
thread = threading.Thread(target=lambda: try_it("thread", socket.socket))
thread.start()
thread.join()
try_it("execve", lambda: os.execv("/bin/true", ["true"]))
try_it("child", lambda: subprocess.run(["/bin/true"]))
for name, number in (("io_uring_setup", 425), ("pidfd_getfd", 438)):
    print(name, libc.syscall(number, 1, 0, 0), ctypes.get_errno())
pair[0].send(b"still there")
print(pair[1].recv(99).decode())
"""


def run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_sandboxed_process_gets_neither_sockets_nor_programs() -> None:
    assert run(_CONFINED) == [
        *("AF_INET 1", "AF_INET6 1", "AF_UNIX 1", "AF_NETLINK 1", "thread 1"),
        *("execve 1", "child 1", "io_uring_setup -1 1", "pidfd_getfd -1 1", "still there"),
    ]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86-64")
def test_the_second_set_of_numbers_is_rejected_too() -> None:
    code = (
        "import ctypes; from server.media.workers.sandbox import enter_sandbox; enter_sandbox()\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "print(libc.syscall(0x40000000 + 41, 2, 1, 0), ctypes.get_errno())"
    )
    assert run(code) == ["-1 1"]


def test_an_unknown_architecture_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    with pytest.raises(SandboxError, match="system calls of vax are unknown"):
        enter_sandbox()


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in MACHINES, reason="nothing is rejected here anyway")
def test_without_a_sandbox_workers_run_and_the_log_says_so() -> None:
    code = (
        "import asyncio, dataclasses, logging, pathlib, platform, sys\n"
        "from server.media.workers.sandbox import MACHINES, install\n"
        "from server.media.workers.pool import MediaPool\nfrom server.media.timings import StageTimes\n"
        "from server.core.settings import MediaSettings\n"
        "machine = MACHINES[platform.machine()]\n"
        "install(dataclasses.replace(machine, rejected=(machine.seccomp,)))\n"
        "logging.basicConfig(stream=sys.stdout, format='%(message)s')\n"
        "async def main():\n"
        '    pool = MediaPool(MediaSettings(), pathlib.Path("/tmp"), StageTimes())\n'
        "    await pool.start()\n    await pool.close()\n"
        "asyncio.run(main())"
    )
    [line] = run(code)
    assert "run without a sandbox" in line
    assert line.endswith("(seccomp: Operation not permitted)")


_TAKEN_OVER = """
import ctypes, os, pathlib, signal, sys, threading
from server.media.workers.main import _libraries
from server.media.workers.landlock import confine_files
from server.media.workers.sandbox import enter_sandbox
own, other, parent = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), os.getppid()
enter_sandbox()
confine_files(_libraries(), [own])

def try_it(name, attempt):
    try:
        attempt()
    except OSError as error:
        print(name, error.strerror)
    else:
        print(name, "done")

try_it("own read", lambda: (own / "file").read_bytes())
try_it("own write", lambda: (own / "file").write_bytes(b"new"))
try_it("own list", lambda: os.listdir(own))
try_it("own new", lambda: (own / "new").write_bytes(b""))
try_it("library", lambda: pathlib.Path(os.__file__).read_bytes())
try_it("package write", lambda: open(sys.modules["server"].__file__, "r+b"))
try_it("other read", lambda: (other / "file").read_bytes())
try_it("other list", lambda: os.listdir(other))
try_it("other delete", lambda: (other / "file").unlink())
try_it("environ", lambda: open(f"/proc/{parent}/environ").read())
try_it("memory", lambda: open(f"/proc/{parent}/mem", "r+b"))
try_it("passwd", lambda: open("/etc/passwd").read())
try_it("project", lambda: os.listdir(pathlib.Path(sys.modules["server"].__file__).parents[1]))
try_it("signal", lambda: os.kill(parent, 0))
try_it("own signal", lambda: os.kill(os.getpid(), 0))
try_it("thread signal", lambda: signal.pthread_kill(threading.get_ident(), signal.SIGCONT))
"""


def test_a_decoder_that_was_taken_over_reaches_its_own_files_and_no_process(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    for folder in (own, other):
        folder.mkdir()
        (folder / "file").write_bytes(b"secret")
    done = subprocess.run(
        [sys.executable, "-c", _TAKEN_OVER, str(own), str(other)], capture_output=True, text=True, check=True
    )
    allowed = ["own read", "own write", "library"]
    refused = {
        "Permission denied": "own list, own new, package write, other read, other list, other delete, environ, memory, "
        "passwd, project",
        "Operation not permitted": "signal, own signal, thread signal",
    }
    assert set(done.stdout.splitlines()) == {f"{name} done" for name in allowed} | {
        f"{name} {reason}" for reason, names in refused.items() for name in names.split(", ")
    }
    assert (own / "file").read_bytes() == b"new"


def test_a_process_closed_to_others_shows_neither_memory_nor_key() -> None:
    code = """
import os, subprocess, sys
from model_executor.privacy import close_to_others, forget_variable
forget_variable("TESSERA_API_KEY")
assert "TESSERA_API_KEY" not in os.environ
print("secret" in open("/proc/self/environ").read())
close_to_others()
import ctypes
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TESSERA_API_KEY": "secret"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "0"]
