"""The package build: what `pyproject.toml` cannot say, which is that the M-RoPE is compiled into the package.

An editable install compiles nothing: `python -m model_executor.kernels.build` does, in place. Without torch or compiler
the package is built without the library and serves with plain torch; `REQUIRE_KERNELS=1` makes that an error.
"""

import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).parent))  # build backends run without it

from model_executor.kernels import build


class BuildWithKernels(build_py):
    """Copies the modules, then compiles beside the copies."""

    def run(self) -> None:
        """Build, and end the build where a required library cannot be had."""
        super().run()
        if not self.editable_mode and build.main(Path(self.build_lib) / "model_executor" / "kernels"):
            raise SystemExit(1)


class PlatformDistribution(Distribution):
    """A package that is made for one platform."""

    def has_ext_modules(self) -> bool:
        """Whether the wheel depends on the platform."""
        return True


setup(cmdclass={"build_py": BuildWithKernels}, distclass=PlatformDistribution)
