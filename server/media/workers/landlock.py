"""Sandbox of a worker process: Landlock, which takes all files away but those it needs, irrevocably.

Landlock needs no privilege, and holds for root, too. It also keeps signals from leaving this process, on kernels that
have that.

Source: Linux `Documentation/userspace-api/landlock.rst`, `linux/landlock.h`; the numbers of the three calls are the
same on all architectures.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from server.media.workers.sandbox import SandboxError

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
TRUNCATE = 1 << 14
_RIGHTS_BY_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights a version of Landlock knows."""
_TCP = (1 << 0) | (1 << 1)
_SCOPED = (1 << 0) | (1 << 1)
"""Abstract sockets and signals, to processes outside."""
_FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE


def confine_files(read: Iterable[Path], write: Iterable[Path]) -> None:
    """From now on this process reaches no file by its name but these; what is open stays open.

    Args:
        read: files and folders that it may read, and load code from. Those that do not exist are left out.
        write: folders whose files it may also write.

    Raises:
        SandboxError: the kernel does not allow it; the process is as it was.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, 0, _VERSION_FLAG)
    if version < 1:
        raise SandboxError(f"Landlock: {os.strerror(ctypes.get_errno())}")
    rights = _RIGHTS_BY_VERSION[max(known for known in _RIGHTS_BY_VERSION if known <= version)]
    # struct landlock_ruleset_attr: files, network from version 4, scopes from version 6; it grew at its end.
    attributes = struct.pack("=QQQ", rights, _TCP, _SCOPED)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        raise SandboxError(f"Landlock: {os.strerror(ctypes.get_errno())}")
    try:
        for paths, allowed in ((read, EXECUTE | READ_FILE | READ_DIR), (write, WRITE_FILE | READ_FILE | TRUNCATE)):
            for path in paths:
                _allow(libc, ruleset, path, allowed & rights)
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
            raise SandboxError(f"Landlock: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        # struct landlock_path_beneath_attr, packed. Of a file, rights of folders are refused.
        rule = struct.pack("=Qi", rights if path.is_dir() else rights & _FILE_RIGHTS, place)
        if libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0) != 0:
            raise SandboxError(f"Landlock: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(place)
