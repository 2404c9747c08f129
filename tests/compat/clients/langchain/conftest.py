"""What the bundled model cannot do, told apart from what the server does wrong: only answers may differ, never fail."""

from collections.abc import Iterable

import pytest
from langchain_core.exceptions import OutputParserException
from pydantic import ValidationError

MODEL = {
    "test_tool_calling": "the model does not read the number 3 out of the question",
    "test_tool_calling_async": "the model does not read the number 3 out of the question",
    "test_bind_runnables_as_tools": "the model may come to no end of its arguments",
    "test_agent_loop": "the model calls no function unless it must",
    "test_json_mode": "the model does not follow an instruction to use two certain keys",
    "test_unicode_tool_call_integration": "the model does not repeat what it is told",
}
WRONG = (AssertionError, ValidationError, OutputParserException)


def pytest_collection_modifyitems(items: Iterable[pytest.Function]) -> None:
    """Expect these to fail, at an assertion about the answer."""
    for item in items:
        if reason := MODEL.get(item.originalname):
            item.add_marker(pytest.mark.xfail(reason=reason, raises=WRONG, strict=False))
