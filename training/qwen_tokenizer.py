"""The true Qwen tokenizer, rebuilt from the public vocabulary in PyPI's `dashscope` package.

What it does: turns the tiktoken rank list into the files a checkpoint carries (`tokenizer.json`,
`tokenizer_config.json`). What it does not: train a vocabulary, or use the package's code (only its data file is read).

Source: Qwen2-VL release, `tokenizer.json` and `tokenizer_config.json` (splitting pattern, special tokens).
"""

import base64
import importlib.util
import itertools
import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from model_executor.processor.tokenizer import byte_alphabet

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

SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

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


def read_ranks() -> dict[bytes, int]:
    """The 151 643 ordinary tokens of the public Qwen vocabulary: bytes to id, the id being the merge rank.

    Raises:
        FileNotFoundError: the `dashscope` package is not installed.
    """
    spec = importlib.util.find_spec("dashscope")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the Qwen vocabulary is in PyPI's dashscope package, which is not installed")
    lines = (Path(spec.origin).parent / "resources" / "qwen.tiktoken").read_bytes().split(b"\n")
    pairs = (line.split() for line in lines if line)
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


def merges_of(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pair each token of two bytes or more was merged from, in order of rank.

    A token's pair is what remains when its bytes are merged with lower ranks only.

    Args:
        ranks: token bytes to merge rank.
    """
    ordered = sorted(ranks.items(), key=lambda item: item[1])
    return [_last_pair(token, rank, ranks) for token, rank in ordered if len(token) > 1]


def _last_pair(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    pieces = [token[i : i + 1] for i in range(len(token))]
    while len(pieces) > 2:
        candidates = [ranks.get(left + right, rank) for left, right in itertools.pairwise(pieces)]
        best = min(candidates)
        if best >= rank:
            raise ValueError(f"token {rank} is not a merge of two earlier ones")
        at = candidates.index(best)
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    return pieces[0], pieces[1]


def build_tokenizer() -> Tokenizer:
    """The tokenizer of the released Qwen2-VL models, special tokens included."""
    ranks = read_ranks()
    characters = {byte: character for character, byte in byte_alphabet().items()}

    def spell(token: bytes) -> str:
        return "".join(characters[byte] for byte in token)

    vocabulary = {spell(token): rank for token, rank in ranks.items()}
    merges = [(spell(left), spell(right)) for left, right in merges_of(ranks)]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


def write_tokenizer(folder: Path, *, max_model_len: int) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` as a released checkpoint has them.

    Args:
        folder: the checkpoint folder, which exists.
        max_model_len: context length in tokens, for the configuration.
    """
    build_tokenizer().save(str(folder / "tokenizer.json"), pretty=False)
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
