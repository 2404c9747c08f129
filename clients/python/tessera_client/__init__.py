"""What the `openai` package lacks for a vision model: media as content parts, uploads, boxes in pixels.

    from pathlib import Path
    from openai import OpenAI
    from tessera_client import boxes, content

    client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="unused")
    answer = client.chat.completions.create(
        model="tessera-tiny",
        messages=[{"role": "user", "content": content("Locate the circle.", Path("circle.png"), client=client)}],
    )
    boxes(answer.choices[0].message.content, width=640, height=480)

Everything here works on plain dictionaries and any `openai.OpenAI`; nothing wraps the client.
"""

from tessera_client.boxes import Box, boxes
from tessera_client.parts import MediaError, Part, image, text, video
from tessera_client.preview import preview
from tessera_client.session import session_headers
from tessera_client.stream import Waiting, stream
from tessera_client.uploads import content, upload

__all__ = [
    "Box",
    "MediaError",
    "Part",
    "Waiting",
    "boxes",
    "content",
    "image",
    "preview",
    "session_headers",
    "stream",
    "text",
    "upload",
    "video",
]
