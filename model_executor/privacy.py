"""Keeping what this process holds from other processes of the same user."""

import ctypes
import os

_PR_SET_DUMPABLE = 4


def close_to_others() -> None:
    """Other processes may no longer read this one's memory or environment, nor trace it; it leaves no core file."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def forget_variable(name: str) -> None:
    """Remove a variable from the environment, and wipe it where `/proc/PID/environ` shows it."""
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    place = libc.getenv(name.encode())
    if place:
        ctypes.memset(place, ord("*"), len(ctypes.string_at(place)))
    os.environ.pop(name, None)
