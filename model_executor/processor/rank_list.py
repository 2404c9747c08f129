"""A vocabulary that comes as a list of ranks (`qwen.tiktoken`) as a tokenizer with merges, as `tokenizer.json` has it.

Source: the releases of Qwen and Qwen2-VL (splitting pattern); tiktoken's format: base64 of a token's bytes and its
rank, one a line, the rank being its id.
"""

import base64
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from model_executor.processor.tokenizer import byte_alphabet

SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def read_rank_list(path: Path) -> dict[bytes, int]:
    """Token bytes to rank.

    Raises:
        ValueError: the file is no list of ranks.
        OSError: it cannot be read.
    """
    pairs = (line.split() for line in path.read_bytes().splitlines() if line)
    return {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}


def merges_of(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pair each token of two bytes or more was merged from, in order of rank.

    A token's pair is what remains when its bytes are merged with lower ranks only.

    Args:
        ranks: token bytes to merge rank.

    Raises:
        ValueError: a token is no merge of two others.
    """
    ordered = sorted(ranks.items(), key=lambda item: item[1])
    return [_last_pair(token, rank, ranks) for token, rank in ordered if len(token) > 1]


def build_tokenizer(ranks: dict[bytes, int], special_tokens: Iterable[AddedToken]) -> Tokenizer:
    """The tokenizer of a rank list.

    Args:
        ranks: token bytes to rank.
        special_tokens: in the order of their ids, which follow the ranks.

    Raises:
        ValueError: as `merges_of`.
    """
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
    tokenizer.add_tokens(list(special_tokens))
    return tokenizer


def _last_pair(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    pieces = [token[i : i + 1] for i in range(len(token))]
    while len(pieces) > 2:
        candidates = [ranks.get(left + right, rank) for left, right in pairwise(pieces)]
        best = min(candidates)
        if best >= rank:
            raise ValueError(f"token {rank} is not a merge of two earlier ones")
        at = candidates.index(best)
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    return pieces[0], pieces[1]
