"""A checkpoint's chat templates: the one for conversations, and another one for tools where it has that.

Source: transformers 4.45 to 5: `chat_template.jinja`, `chat_template.json`, the tokenizer's and the processor's own
entry, each a text or a list of named templates, and `additional_chat_templates/NAME.jinja`.
"""

from pathlib import Path
from typing import Any

from model_executor.checkpoint.errors import CheckpointError
from model_executor.checkpoint.json_file import read_json

_OWNER = "the model"
_DEFAULT, _TOOLS = "default", "tool_use"


def read_chat_templates(directory: Path) -> tuple[str | None, str | None]:
    """Jinja sources: for conversations, and for those with tools; each None if the checkpoint has none of its own.

    Raises:
        CheckpointError: a file is malformed, or names templates of which none is the default.
    """
    path = directory / "chat_template.jinja"
    if path.is_file():
        tools = directory / "additional_chat_templates" / f"{_TOOLS}.jinja"
        return path.read_text("utf-8"), tools.read_text("utf-8") if tools.is_file() else None
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        templates = _by_name(read_json(directory / name, _OWNER, optional=True).get("chat_template"))
        if templates and _DEFAULT not in templates:
            raise CheckpointError(f"{name} of {_OWNER} has chat templates, but none is named {_DEFAULT!r}")
        if templates:
            return templates[_DEFAULT], templates.get(_TOOLS)
    return None, None


def _by_name(value: Any) -> dict[str, str]:
    """The templates of an entry: a text, a list of `{"name", "template"}`, or an object from names to texts."""
    if isinstance(value, str):
        return {_DEFAULT: value}
    if isinstance(value, dict):
        return {name: text for name, text in value.items() if isinstance(text, str)}
    entries = [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
    return {str(entry.get("name")): entry["template"] for entry in entries if isinstance(entry.get("template"), str)}
