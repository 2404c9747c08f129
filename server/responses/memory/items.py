"""Items between wire and memory: given ids and their full form, and read again as a request's. Pure."""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_json

from server.api.validation import refusal
from server.prompt.messages import StoredFile
from server.responses.input import AnyInput, ItemReference
from server.responses.memory.store import StoredItem

FindFile = Callable[[str], StoredFile | None]

_ADAPTER: TypeAdapter[AnyInput] = TypeAdapter(AnyInput)
_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def stored_input(items: str | Sequence[AnyInput]) -> list[StoredItem]:
    """A request's own items for the memory, each with an id; references to others are none.

    Args:
        items: as the client sent them.
    """
    if isinstance(items, str):
        return [stored({"type": "message", "role": "user", "content": items})]
    return [
        stored(item.model_dump(mode="json", exclude_unset=True))
        for item in items
        if not isinstance(item, ItemReference)
    ]


def stored_output(items: Iterable[BaseModel]) -> tuple[StoredItem, ...]:
    """An answer's items for the memory."""
    return tuple(stored(item.model_dump(mode="json", exclude_unset=True)) for item in items)


def stored(fields: Mapping[str, Any]) -> StoredItem:
    """An item for the memory: with an id, and written out as answers have it."""
    kind = fields.get("type") or "message"
    whole = {"id": f"{_PREFIXES[kind]}_{uuid.uuid4().hex}", "type": kind, "status": "completed", **fields}
    if kind == "message" and isinstance(whole["content"], str):
        text = {"text": whole["content"]}
        whole["content"] = [
            {"type": "output_text", **text, "annotations": [], "logprobs": []}
            if whole["role"] == "assistant"
            else {"type": "input_text", **text}
        ]
    return StoredItem(whole["id"], to_json(whole))


def read_again(item: StoredItem, param: str, find_file: FindFile) -> AnyInput:
    """An item of the memory as a request's.

    Args:
        item: from the memory.
        param: the request field that led to it.
        find_file: the uploaded file of an id, which may be gone by now.

    Raises:
        ClientError: it names a file that is gone.
    """
    try:
        return _ADAPTER.validate_python(item.fields, context={"find_file": find_file, "ignored": []})
    except ValidationError as error:
        raise refusal(error, prefix=param) from error
