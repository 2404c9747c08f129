"""The items of a response's output while they grow, messages and calls, and the events that announce them. Pure."""

import uuid
from typing import Any

from server.generation.response_fields import TokenLogprob
from server.responses import response as wire

EventParts = tuple[type[wire.ResponseEvent], str, dict[str, Any]]
"""An event without its number: model, type, other fields."""


class GrowingMessage:
    """Text the assistant says.

    Args:
        index: of the item in the output.
    """

    def __init__(self, index: int) -> None:
        self._index = index
        self._id = f"msg_{uuid.uuid4().hex}"
        self._place = {"item_id": self._id, "output_index": index, "content_index": 0}
        self._text: list[str] = []
        self._logprobs: list[TokenLogprob] = []

    def opening(self) -> list[EventParts]:
        """The item and its one part begin."""
        item = self._item("in_progress", [])
        part = wire.OutputTextPart(type="output_text", text="", annotations=[], logprobs=[])
        return [
            (wire.ItemEvent, "response.output_item.added", {"output_index": self._index, "item": item}),
            (wire.PartEvent, "response.content_part.added", {"part": part, **self._place}),
        ]

    def grow(self, text: str, logprobs: list[TokenLogprob]) -> EventParts:
        """More text, with the log-probabilities of its tokens where they are requested."""
        self._text.append(text)
        self._logprobs += logprobs
        fields = {"delta": text, "logprobs": logprobs, **self._place}
        return wire.TextDeltaEvent, "response.output_text.delta", fields

    def closing(self, status: wire.ItemStatus) -> list[EventParts]:
        """Text, part and item are done."""
        item = self.item(status)
        part = item.content[0]
        done = {"text": part.text, "logprobs": part.logprobs, **self._place}
        return [
            (wire.TextDoneEvent, "response.output_text.done", done),
            (wire.PartEvent, "response.content_part.done", {"part": part, **self._place}),
            (wire.ItemEvent, "response.output_item.done", {"output_index": self._index, "item": item}),
        ]

    def item(self, status: wire.ItemStatus) -> wire.OutputMessage:
        """The message as far as it has come."""
        text = "".join(self._text)
        part = wire.OutputTextPart(type="output_text", text=text, annotations=[], logprobs=self._logprobs)
        return self._item(status, [part])

    def _item(self, status: wire.ItemStatus, content: list[wire.OutputTextPart]) -> wire.OutputMessage:
        return wire.OutputMessage(id=self._id, type="message", status=status, role="assistant", content=content)


class GrowingCall:
    """A function the client is to call.

    Args:
        index: of the item in the output.
        call_id: what the item with the result refers to.
        name: of the function.
        namespace: of the function, if it has one.
    """

    def __init__(self, index: int, call_id: str, name: str, namespace: str | None = None) -> None:
        self._index = index
        self._id = f"fc_{uuid.uuid4().hex}"
        self._call_id = call_id
        self._name = name
        self._namespace = {} if namespace is None else {"namespace": namespace}
        self._arguments: list[str] = []

    def opening(self) -> list[EventParts]:
        """The item begins."""
        item = self.item("in_progress")
        return [(wire.ItemEvent, "response.output_item.added", {"output_index": self._index, "item": item})]

    def grow(self, arguments: str) -> EventParts:
        """More of the arguments' text."""
        self._arguments.append(arguments)
        fields = {"item_id": self._id, "output_index": self._index, "delta": arguments}
        return wire.ArgumentsDeltaEvent, "response.function_call_arguments.delta", fields

    def closing(self, status: wire.ItemStatus) -> list[EventParts]:
        """Arguments and item are done."""
        item = self.item(status)
        done = {
            "item_id": self._id,
            "output_index": self._index,
            "name": item.name,
            "arguments": item.arguments,
        }
        return [
            (wire.ArgumentsDoneEvent, "response.function_call_arguments.done", done),
            (wire.ItemEvent, "response.output_item.done", {"output_index": self._index, "item": item}),
        ]

    def item(self, status: wire.ItemStatus) -> wire.FunctionCallItem:
        """The call as far as it has come."""
        return wire.FunctionCallItem(
            id=self._id,
            type="function_call",
            status=status,
            call_id=self._call_id,
            name=self._name,
            arguments="".join(self._arguments),
            **self._namespace,
        )


GrowingItem = GrowingMessage | GrowingCall
