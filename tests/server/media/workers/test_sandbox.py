"""What the kernel refuses a confined process, tried in processes of their own; and what is said where it cannot."""

import platform
import subprocess
import sys

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


@pytest.mark.skipif(platform.machine() not in MACHINES, reason="nothing is rejected here anyway")
def test_without_a_sandbox_workers_run_and_the_log_says_so() -> None:
    code = (
        "import asyncio, dataclasses, logging, platform, sys\n"
        "from server.media.workers.sandbox import MACHINES, install\n"
        "from server.media.workers.pool import MediaPool\nfrom server.media.timings import StageTimes\n"
        "from server.core.settings import MediaSettings\n"
        "machine = MACHINES[platform.machine()]\n"
        "install(dataclasses.replace(machine, rejected=(machine.seccomp,)))\n"
        "logging.basicConfig(stream=sys.stdout, format='%(message)s')\n"
        "async def main():\n"
        "    pool = MediaPool(MediaSettings(), StageTimes())\n    await pool.start()\n    await pool.close()\n"
        "asyncio.run(main())"
    )
    [line] = run(code)
    assert "run without a sandbox" in line
    assert line.endswith("(seccomp: Operation not permitted)")
