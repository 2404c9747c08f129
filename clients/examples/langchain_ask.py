"""Ask about a picture through LangChain, streamed.

Run: `python langchain_ask.py "What is in this picture?" docs/circle.png`. The server is that of OPENAI_BASE_URL.
"""

import base64
import os
import sys
from pathlib import Path

from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from openai import OpenAI

URL = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
KEY = os.environ.get("OPENAI_API_KEY", "unused")


def main() -> None:
    """Ask the question about the picture, both from the command line."""
    question, path = sys.argv[1:]
    with OpenAI(base_url=URL, api_key=KEY) as client:
        model = client.models.list().data[0].id
    chat = ChatOpenAI(model=model, base_url=URL, api_key=KEY, temperature=0)
    picture = base64.b64encode(Path(path).read_bytes()).decode()
    message = HumanMessage(
        [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
            {"type": "text", "text": question},
        ]
    )
    for piece in chat.stream([message]):
        print(piece.text, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
