"""The true Qwen tokenizer, rebuilt from the public vocabulary in PyPI's `dashscope` package.

What it does: turns the tiktoken rank list into the files a checkpoint carries (`tokenizer.json`,
`tokenizer_config.json`). What it does not: train a vocabulary, or use the package's code (only its data file is read).

Source: Qwen2-VL release, `tokenizer.json` and `tokenizer_config.json` (splitting pattern, special tokens).
"""

import importlib.util
import json
from pathlib import Path

from tokenizers import AddedToken

from model_executor.processor.rank_list import build_tokenizer, read_rank_list

NUM_ORDINARY_TOKENS = 151_643
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""In the order of their ids, which follow the ordinary tokens: 151 643 to 151 656."""

CHAT_TEMPLATE = """\
{%- set pictures = namespace(images=0, videos=0) -%}
{%- if messages[0].role != 'system' -%}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {{- '<|im_start|>' ~ message.role ~ '\\n' -}}
    {%- if message.content is string -%}
        {{- message.content -}}
    {%- else -%}
        {%- for part in message.content -%}
            {%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}
                {%- set pictures.images = pictures.images + 1 -%}
                {%- if add_vision_id -%}{{- 'Picture ' ~ pictures.images ~ ': ' -}}{%- endif -%}
                {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
            {%- elif part.type == 'video' or 'video' in part -%}
                {%- set pictures.videos = pictures.videos + 1 -%}
                {%- if add_vision_id -%}{{- 'Video ' ~ pictures.videos ~ ': ' -}}{%- endif -%}
                {{- '<|vision_start|><|video_pad|><|vision_end|>' -}}
            {%- elif 'text' in part -%}
                {{- part.text -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
"""ChatML with the release's meaning; a conversation without a system turn gets the default one."""


def vocabulary_path() -> Path:
    """The public list of the 151 643 ordinary tokens.

    Raises:
        FileNotFoundError: the `dashscope` package is not installed.
    """
    spec = importlib.util.find_spec("dashscope")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the Qwen vocabulary is in PyPI's dashscope package, which is not installed")
    return Path(spec.origin).parent / "resources" / "qwen.tiktoken"


def write_tokenizer(folder: Path, *, max_model_len: int) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` as a released checkpoint has them.

    Args:
        folder: the checkpoint folder, which exists.
        max_model_len: context length in tokens, for the configuration.
    """
    special = [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    build_tokenizer(read_rank_list(vocabulary_path()), special).save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "model_max_length": max_model_len,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "bos_token": None,
        "unk_token": None,
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
