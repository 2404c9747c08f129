"""Import hook: `model_executor.*` is always looked up in this directory, because vLLM reuses the package's name.

While vLLM's configuration is imported, it puts modules of its own into `sys.modules` as `model_executor`
(`LazyLoader` in vllm/config/model.py and vllm/config/speculative.py of 0.32). A module of this package that has not
been imported by then would be searched for in vLLM's package. So this package finds its own modules, and takes its name
back whenever one of them is imported. An editable installation hides the problem; a plain one would not start.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_NAME = __name__.partition(".")[0]
_PACKAGE = sys.modules[_NAME]


class _OwnModules(MetaPathFinder):
    """Finds modules of this package below its own directory, whatever `sys.modules` has under its name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As `importlib.abc.MetaPathFinder.find_spec`."""
        parent = fullname.rpartition(".")[0]
        if parent != _NAME and not parent.startswith(f"{_NAME}."):
            return None
        sys.modules[_NAME] = _PACKAGE
        return PathFinder.find_spec(fullname, _PACKAGE.__path__ if parent == _NAME else path, target)


sys.meta_path.insert(0, _OwnModules())
