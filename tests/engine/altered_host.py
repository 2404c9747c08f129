"""The real host with another body of the rotary operator in place of the compiled one, told by the variable KERNEL.

reference: plain torch. swapped: plain torch with height and width mistaken for each other.
"""

import os
import sys
from pathlib import Path

from model_executor.engine import EngineSettings
from model_executor.engine_process import main

_prepare = main._prepare_environment


def _prepare_and_alter(settings: EngineSettings, model: Path, *, cpu: bool) -> None:
    _prepare(settings, model, cpu=cpu)
    from model_executor.kernels import (
        native,
        reference,  # torch reads the environment when it is imported
    )
    from tests.model_executor.kernels.agreement import with_height_and_width_swapped

    setattr(native, "load", lambda: False)  # noqa: B010  (to a type checker these are not variables)
    if os.environ["KERNEL"] == "swapped":
        setattr(reference, "rotate_", with_height_and_width_swapped(reference.rotate_))  # noqa: B010


if __name__ == "__main__":
    main._prepare_environment = _prepare_and_alter
    status = main.main()
    sys.stderr.flush()
    os._exit(status)
