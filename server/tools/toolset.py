"""The functions of one request, whichever API it came in: what the model reads, and what it may or must call."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from server.api.base_models import conflict


@dataclass(frozen=True, slots=True)
class ToolFunction:
    """A function and how to call it."""

    name: str
    description: str | None
    """What it does; the model reads it."""
    parameters: dict[str, Any] | None
    """JSON Schema of the arguments, which are an object; None: there are none."""
    strict: bool
    """Whether parameters that cannot be enforced to the letter are refused, instead of enforcing a JSON object."""
    param: str
    """The request field that holds `parameters`, for errors: `tools[0].function.parameters`."""


@dataclass(frozen=True, slots=True)
class Toolset:
    """Functions the model reads, and how it may call them."""

    functions: tuple[ToolFunction, ...]
    must_call: bool
    """Whether the answer is calls and nothing else."""
    calls_once: bool
    """Whether one call is the most."""
    allowed: frozenset[str] | None = None
    """Names of the functions that may be called; None: all."""

    @property
    def callable_functions(self) -> list[ToolFunction]:
        """The functions that may be called."""
        return [function for function in self.functions if self.allowed is None or function.name in self.allowed]


def check_names(functions: Iterable[tuple[str, str]], chosen: Iterable[tuple[str, str]]) -> None:
    """Check that functions have different names, and that the chosen ones exist; validators of requests call it.

    Args:
        functions: each function's request field and its name.
        chosen: the same of what `tool_choice` names.

    Raises:
        PydanticCustomError: they do not.
    """
    names: set[str] = set()
    for param, name in functions:
        if name in names:
            raise conflict(param, "is the name of an earlier tool")
        names.add(name)
    for param, name in chosen:
        if name not in names:
            raise conflict(param, "does not name any of 'tools'")
