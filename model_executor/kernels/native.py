"""Loading the compiled CPU body of the operator; `build.py` makes the library.

The library registers itself for the CPU when it is loaded. Where it is missing, the plain-torch body runs, which is
right but slow; that is said once, and `REQUIRE_KERNELS=1` makes it an error.
"""

import ctypes
import logging
import os
from functools import cache

import torch

from model_executor.kernels.build import FOLDER, LIBRARY

INSTRUCTION_SETS = ("avx512_bf16", "avx512", "avx2", "portable")
"""What the library contains on x86-64, fastest first; elsewhere only the last."""

_log = logging.getLogger(__name__)


class KernelsMissingError(ImportError):
    """`REQUIRE_KERNELS=1`, and a fast body of the operator cannot be had."""


@cache
def load() -> bool:
    """Register the compiled body, once a process.

    Returns:
        Whether it runs from now on.

    Raises:
        KernelsMissingError: it cannot be loaded, and `REQUIRE_KERNELS=1`.
    """
    try:
        torch.ops.load_library(FOLDER / LIBRARY)  # type: ignore[no-untyped-call]
    except OSError as error:
        fact = f"the compiled M-RoPE is not available ({error}); `python -m model_executor.kernels.build` makes it"
        if os.environ.get("REQUIRE_KERNELS") == "1":
            raise KernelsMissingError(fact) from error
        _log.warning("%s. Plain torch runs instead, which is slower", fact)
        return False
    return True


def instructions() -> str:
    """The instruction set in use, one of `INSTRUCTION_SETS`; the library must be loaded."""
    name: bytes = _function("tessera_instructions", ctypes.c_char_p)()
    return name.decode()


def use_instructions(name: str) -> bool:
    """Use another instruction set from now on, for tests and measurements.

    Returns:
        Whether this machine has it; if not, nothing changes.
    """
    return bool(_function("tessera_use_instructions", ctypes.c_bool)(name.encode()))


def _function(name: str, result: type[ctypes.c_char_p] | type[ctypes.c_bool]) -> "ctypes._NamedFuncPointer":
    function = ctypes.CDLL(str(FOLDER / LIBRARY))[name]
    function.restype = result
    return function
