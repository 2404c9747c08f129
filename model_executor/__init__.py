"""Qwen2-VL on vLLM: geometry, tokens and positions (pure), the model, and the process that runs the engine.

While vLLM's configuration is imported, it enters modules of its own into `sys.modules` as `model_executor`
(`LazyLoader` in vllm/config/model.py and vllm/config/speculative.py of 0.32). What has not been imported of this
package by then would be looked for in theirs. So this package finds its own modules, and takes its name back whenever
it is asked for one.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class _OwnModules(MetaPathFinder):
    """Finds modules of this package below this folder, whoever has its name at the moment."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As `importlib.abc.MetaPathFinder.find_spec`."""
        parent = fullname.rpartition(".")[0]
        if parent != __name__ and not parent.startswith(f"{__name__}."):
            return None
        sys.modules[__name__] = _PACKAGE
        return PathFinder.find_spec(fullname, __path__ if parent == __name__ else path, target)


_PACKAGE = sys.modules[__name__]
sys.meta_path.insert(0, _OwnModules())
