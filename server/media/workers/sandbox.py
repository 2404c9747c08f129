"""Sandbox of a worker process: a seccomp filter that takes network, programs and signals away, irrevocably.

The filter rejects the system calls for both, in every thread, and needs no privilege: it works in containers that may
not create namespaces, too. Sockets, pipes and files that are open already stay usable.

Source: Linux `Documentation/userspace-api/seccomp_filter.rst`, `linux/seccomp.h`, `linux/filter.h`, and the tables
`arch/x86/entry/syscalls/syscall_64.tbl` and `include/uapi/asm-generic/unistd.h`.
"""

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass

_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FILTER_FLAG_TSYNC = 1
_RET_ALLOW = 0x7FFF_0000
_RET_ERRNO = 0x0005_0000

_LOAD_WORD = 0x20
_JUMP_IF_EQUAL = 0x15
_JUMP_IF_AT_LEAST = 0x35
_RETURN = 0x06
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET = 0, 4
_X32_CALLS = 0x4000_0000
"""On x86-64, numbers from here on are a second set of the same calls."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Numbers of the system calls on one architecture."""

    audit_number: int
    """AUDIT_ARCH_*."""
    seccomp: int
    """Number of the call that installs a filter."""
    rejected: tuple[int, ...]
    """socket, execve, execveat, ptrace, process_vm_readv, process_vm_writev, io_uring_setup (a ring makes sockets),
    pidfd_getfd (which takes those of other processes); kill, tkill, tgkill, rt_sigqueueinfo, rt_tgsigqueueinfo and
    pidfd_send_signal."""


MACHINES = {
    "x86_64": Machine(0xC000_003E, 317, (41, 59, 322, 101, 310, 311, 425, 438, 62, 200, 234, 129, 297, 424)),
    "aarch64": Machine(0xC000_00B7, 277, (198, 221, 281, 117, 270, 271, 425, 438, 129, 130, 131, 138, 240, 424)),
}


class SandboxError(Exception):
    """The kernel does not support it; the text says why."""


def enter_sandbox() -> None:
    """From now on this process opens no socket, starts no program, sends no signal: such calls fail with EPERM.

    Raises:
        SandboxError: nothing has changed.
    """
    machine = MACHINES.get(platform.machine())
    if machine is None:
        raise SandboxError(f"the system calls of {platform.machine()} are unknown")
    install(machine)


def install(machine: Machine) -> None:
    """Have the kernel reject system calls.

    Args:
        machine: which ones, by their numbers on this architecture.

    Raises:
        SandboxError: as `enter_sandbox`.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(_program(machine))
    # struct sock_fprog: number of instructions, padding, address.
    program = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(code)))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise SandboxError(f"no_new_privs: {os.strerror(ctypes.get_errno())}")
    if libc.syscall(machine.seccomp, _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, program) != 0:
        raise SandboxError(f"seccomp: {os.strerror(ctypes.get_errno())}")


def _program(machine: Machine) -> bytes:
    """The filter, as instructions of the kernel's packet filter."""
    # From every test to the rejection at the end: past the tests that follow and the permission.
    num_after = len(machine.rejected)
    tests = [_instruction(_JUMP_IF_EQUAL, number, num_after - i, 0) for i, number in enumerate(machine.rejected)]
    return b"".join(
        [
            _instruction(_LOAD_WORD, _ARCHITECTURE_OFFSET),
            _instruction(_JUMP_IF_EQUAL, machine.audit_number, 0, num_after + 3),  # calls of a foreign architecture
            _instruction(_LOAD_WORD, _NUMBER_OFFSET),
            _instruction(_JUMP_IF_AT_LEAST, _X32_CALLS, num_after + 1, 0),
            *tests,
            _instruction(_RETURN, _RET_ALLOW),
            _instruction(_RETURN, _RET_ERRNO | errno.EPERM),
        ]
    )


def _instruction(code: int, value: int, steps_if_true: int = 0, steps_if_false: int = 0) -> bytes:
    """One `struct sock_filter`."""
    return struct.pack("=HBBI", code, steps_if_true, steps_if_false, value)
