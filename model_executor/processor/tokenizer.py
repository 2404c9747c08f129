"""Segments of a prompt to token ids, with the model's own tokenizer; control and client text never mix.

Control text may hold special tokens (`<|im_start|>`); in client text the same characters are plain text. Runs of plain
text are encoded in one piece, across the border between control and client text, so the ids equal those of the whole
prompt encoded at once wherever the client typed no special token.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from tokenizers import Tokenizer as Backend

from model_executor.checkpoint.config import CheckpointError
from model_executor.engine import Modality


@dataclass(frozen=True, slots=True)
class TemplateText:
    """Text of the prompt format; special tokens in it are special."""

    text: str


@dataclass(frozen=True, slots=True)
class UserText:
    """Text somebody wrote; nothing in it is special."""

    text: str


@dataclass(frozen=True, slots=True)
class MediaPlaceholder:
    """The place of one medium's placeholders; the delimiters around it are control text."""

    index: int
    """Which medium, counted from 0 over the whole request."""
    modality: Modality


Segment = TemplateText | UserText | MediaPlaceholder


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a prompt and where its media stand."""

    token_ids: list[int]
    media_offsets: list[int]
    """By medium index: index in `token_ids` of the first placeholder."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Plain text, encoded in one piece, and the number of the segment each part of it comes from."""

    texts: list[str]
    numbers: list[int]

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def add(self, text: str, number: int) -> None:
        if text:
            self.texts.append(text)
            self.numbers.append(number)


class Tokenizer:
    """A checkpoint's tokenizer.

    Args:
        folder: the model folder; `tokenizer.json` is read.

    Raises:
        CheckpointError: the file is malformed or lacks Qwen's special tokens.
    """

    def __init__(self, folder: Path) -> None:
        source = (folder / "tokenizer.json").read_text("utf-8")
        try:
            self._full = Backend.from_str(source)
            plain = json.loads(source)
            plain["added_tokens"] = []
            self._plain = Backend.from_str(json.dumps(plain))
        except Exception as error:  # the backend raises bare Exception
            raise CheckpointError(f"the model's tokenizer.json cannot be read: {error}") from error
        vocabulary = self._full.get_vocab()
        self.num_tokens = max(vocabulary.values()) + 1
        """Ids there are, special ones included; valid ids are below it."""
        self.max_token_bytes = max(map(len, vocabulary))
        """Bytes of the longest token."""
        self._special = {token.content: id_ for id_, token in self._full.get_added_tokens_decoder().items()}
        try:
            self._placeholders: dict[Modality, int] = {
                "image": self._special["<|image_pad|>"],
                "video": self._special["<|video_pad|>"],
            }
        except KeyError as error:
            raise CheckpointError(f"the model's tokenizer has no {error.args[0]} token") from error
        longest_first = sorted(self._special, key=len, reverse=True)
        self._splitter = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
        self._byte_of = byte_alphabet()

    def encode(self, segments: Iterable[Segment], num_media_tokens: Sequence[int]) -> Encoded:
        """Token ids of `segments`, with placeholders spliced in.

        Args:
            segments: in prompt order.
            num_media_tokens: placeholders of each medium, by `MediaPlaceholder.index`.
        """
        ids: list[int] = []
        offsets = [-1] * len(num_media_tokens)
        for piece in self._pieces(segments):
            match piece:
                case _Run():
                    ids.extend(self._plain.encode(piece.text, add_special_tokens=False).ids)
                case (_, MediaPlaceholder(index, modality)):
                    offsets[index] = len(ids)
                    ids.extend([self._placeholders[modality]] * num_media_tokens[index])
                case (_, token_id):
                    ids.append(token_id)
        return Encoded(ids, offsets)

    def count(self, segments: Sequence[Segment], num_media_tokens: Sequence[int]) -> list[int]:
        """How many tokens each segment has in what `encode` makes of them all.

        A token over the border of two texts counts for the one it begins in.

        Args:
            segments: as `encode`.
            num_media_tokens: as `encode`.
        """
        counts = [0] * len(segments)
        for piece in self._pieces(segments):
            match piece:
                case _Run(texts, numbers):
                    ends = list(accumulate(map(len, texts)))
                    for start, _ in self._plain.encode(piece.text, add_special_tokens=False).offsets:
                        counts[numbers[min(bisect_right(ends, start), len(ends) - 1)]] += 1
                case (number, MediaPlaceholder(index, _)):
                    counts[number] += num_media_tokens[index]
                case (number, _):
                    counts[number] += 1
        return counts

    def _pieces(self, segments: Iterable[Segment]) -> Iterator["_Run | tuple[int, int | MediaPlaceholder]"]:
        """What is encoded in one go: runs of plain text; special tokens and media, with their segment's number."""
        run = _Run([], [])
        for number, atom in self._atoms(segments):
            if isinstance(atom, str):
                run.add(atom, number)
                continue
            if run.texts:
                yield run
                run = _Run([], [])
            yield number, atom
        if run.texts:
            yield run

    def _atoms(self, segments: Iterable[Segment]) -> Iterator[tuple[int, str | int | MediaPlaceholder]]:
        """Plain texts, ids of special tokens, and media, each with the number of its segment."""
        for number, segment in enumerate(segments):
            match segment:
                case UserText(text):
                    yield number, text
                case TemplateText(text):
                    for part in self._splitter.split(text):
                        yield number, self._special.get(part, part)
                case MediaPlaceholder():
                    yield number, segment

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of `token_ids`; broken characters come out as U+FFFD."""
        return self._full.decode(list(token_ids), skip_special_tokens=skip_special_tokens)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes one token stands for; a special token's are those of its name. Empty for an id without a token."""
        token = self._full.id_to_token(token_id)
        if token is None:
            return b""
        if token in self._special:
            return token.encode()
        return bytes(self._byte_of[character] for character in token)

    def special_id(self, name: str) -> int | None:
        """The id of a special token such as `<|im_end|>`, or None."""
        return self._special.get(name)


def byte_alphabet() -> dict[str, int]:
    """The printable stand-in of each byte in a byte-level BPE vocabulary, reversed.

    Source: Radford et al. 2019 (GPT-2): bytes that are printable Latin-1 stand for themselves, the others for the code
    points from 256 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
