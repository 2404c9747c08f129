"""Two tools, a call of each as the model writes it, and an engine that says what it is told."""

from collections.abc import Iterable
from typing import Any

from model_executor.engine import Prompt, SamplingParams
from tests.support.fakes import Script, Step, say

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells <|im_end|> the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
NOW = {"type": "function", "function": {"name": "now"}}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
OTHER = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


def saying(*texts: str, finish: Any = "stop") -> Script:
    """The same text for every choice, in pieces."""

    def script(_: Prompt, limits: SamplingParams) -> Iterable[Step]:
        return [delta for index in range(limits.n) for delta in say(*texts, index=index, finish=finish)]

    return script
