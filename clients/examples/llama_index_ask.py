"""Ask about a picture through LlamaIndex.

Run: `python llama_index_ask.py "What is in this picture?" docs/circle.png`. The server is that of OPENAI_BASE_URL.
"""

import os
import sys
from pathlib import Path

from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.llms.openai_like import OpenAILike
from openai import OpenAI

URL = os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
KEY = os.environ.get("OPENAI_API_KEY", "unused")


def main() -> None:
    """Ask the question about the picture, both from the command line."""
    question, path = sys.argv[1:]
    with OpenAI(base_url=URL, api_key=KEY) as client:
        model = client.models.list().data[0]
    context = (model.model_extra or {}).get("max_model_len", 4096)
    llm = OpenAILike(
        model=model.id,
        api_base=URL,
        api_key=KEY,
        is_chat_model=True,
        context_window=context,
        temperature=0,
        max_tokens=200,
    )
    message = ChatMessage(role="user", blocks=[ImageBlock(path=Path(path)), TextBlock(text=question)])
    print(llm.chat([message]).message.content)


if __name__ == "__main__":
    main()
