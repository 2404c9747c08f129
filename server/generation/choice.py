"""One of an answer's choices while it grows: what it says, what it calls, how it ends. Pure.

Where functions may be called, text is held back as long as it may belong to a call (`server/tools/parser.py`).
"""

import uuid
from dataclasses import dataclass, field

from model_executor.engine import Delta, FinishReason
from server.chat import response as wire
from server.tools.parser import ArgumentsDelta, CallReader, OutputEvent, TextDelta, ToolCallStart


@dataclass(slots=True)
class _Call:
    id: str
    name: str
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Choice:
    """What has come of it so far."""

    reader: CallReader | None
    """Finds calls; None where there can be none."""
    logprobs: list[wire.TokenLogprob] = field(default_factory=list)
    ended: FinishReason | None = None
    """Why the engine ended it."""
    started: bool = False
    """Whether its opening was sent."""
    _said: list[str] = field(default_factory=list)
    _calls: list[_Call] = field(default_factory=list)

    @property
    def finish_reason(self) -> wire.ChatFinishReason | None:
        """Why it ended, as the API has it; a call that was cut is not one to make."""
        calls = self._calls and self.reader is not None and not self.reader.is_cut
        return "tool_calls" if self.ended == "stop" and calls else self.ended

    def read(self, delta: Delta) -> list[wire.ChoiceDelta]:
        """Take a delta in.

        Returns:
            What it adds, as chunks tell it.
        """
        self.ended = delta.finish_reason or self.ended
        if self.reader is None:
            found: list[OutputEvent] = [TextDelta(delta.text)] if delta.text else []
        else:
            found = self.reader.feed(delta.text)
            if delta.finish_reason is not None:
                found += self.reader.end()
        return [self._addition(one) for one in found]

    def opening(self) -> wire.ChoiceDelta:
        """What its first chunk tells."""
        # Where calls may follow, null is what is left if nothing is said.
        return wire.ChoiceDelta(role="assistant", content=None if self.reader else "", refusal=None)

    def message(self) -> wire.Message:
        """All of it."""
        text = "".join(self._said)
        if not self._calls:
            return wire.Message(role="assistant", content=text, refusal=None)
        calls = [
            wire.ToolCall(
                id=call.id,
                type="function",
                function=wire.CalledFunction(name=call.name, arguments="".join(call.arguments)),
            )
            for call in self._calls
        ]
        return wire.Message(role="assistant", content=text or None, refusal=None, tool_calls=calls)

    def _addition(self, found: OutputEvent) -> wire.ChoiceDelta:
        match found:
            case TextDelta(text):
                self._said.append(text)
                return wire.ChoiceDelta(content=text)
            case ToolCallStart(name):
                self._calls.append(_Call(f"call_{uuid.uuid4().hex[:24]}", name))
                call = wire.ToolCallDelta(
                    index=len(self._calls) - 1,
                    id=self._calls[-1].id,
                    type="function",
                    function=wire.FunctionDelta(name=name, arguments=""),
                )
            case ArgumentsDelta(text):
                self._calls[-1].arguments.append(text)
                function = wire.FunctionDelta(arguments=text)
                call = wire.ToolCallDelta(index=len(self._calls) - 1, function=function)
        return wire.ChoiceDelta(tool_calls=[call])
