"""LangChain's ChatOpenAI with a picture and a tool: `python langchain_chat.py PICTURE` prints what came, as JSON."""

import base64
import json
import os
import sys
from pathlib import Path

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI

TOOL = {
    "type": "function",
    "function": {
        "name": "paint",
        "description": "Paint it.",
        "parameters": {
            "type": "object",
            "properties": {"color": {"type": "string", "enum": ["red", "green"]}},
            "required": ["color"],
            "additionalProperties": False,
        },
    },
}


def main() -> None:
    """Ask about the picture of the command line, have a function called and answer its call."""
    chat = ChatOpenAI(model=os.environ["MODEL"], temperature=0, max_tokens=80)
    picture = base64.b64encode(Path(sys.argv[1]).read_bytes()).decode()
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}
    question = HumanMessage([image, {"type": "text", "text": "What is in this picture?"}])
    whole = chat.invoke([question])
    streamed = "".join(piece.text for piece in chat.stream([question]))

    order = HumanMessage([image, {"type": "text", "text": "Paint it red."}])
    called = chat.bind_tools([TOOL], tool_choice="required").invoke([order])
    assert isinstance(called, AIMessage)
    (call,) = called.tool_calls[:1]
    results = [ToolMessage("Painted.", tool_call_id=made["id"]) for made in called.tool_calls]
    after = chat.bind_tools([TOOL], tool_choice="none").invoke([order, called, *results])
    told = {
        "whole": whole.text,
        "streamed": streamed,
        "call": [call["name"], call["args"]],
        "after": after.response_metadata["finish_reason"],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
