"""The model's tokenizer: encodes prompt segments to token ids, without letting user text become special tokens.

Template text may contain special tokens (`<|im_start|>`); in user text the same characters are plain text. A run of
plain text is encoded in one piece, across the border between template and user text, so the ids equal those of the
whole prompt encoded at once unless the user text spells a special token.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from tokenizers import Tokenizer as Backend

from model_executor.engine import Modality

PLACEHOLDERS: Mapping[Modality, str] = {"image": "<|image_pad|>", "video": "<|video_pad|>"}
"""Names of Qwen2-VL's placeholder tokens."""


class TokenizerFileError(Exception):
    """A model's tokenizer.json cannot be used."""


@dataclass(frozen=True, slots=True)
class TemplateText:
    """Text of the prompt format; it may contain special tokens."""

    text: str
    is_cut: bool = False
    """Whether the text that follows is encoded apart from it."""


@dataclass(frozen=True, slots=True)
class UserText:
    """Text of a user or client; special tokens in it are plain text."""

    text: str


@dataclass(frozen=True, slots=True)
class MediaPlaceholder:
    """The position of one image or video in the prompt; the delimiters around it are template text."""

    index: int
    """Number of the media item, counted from 0 over the whole request."""
    modality: Modality


Segment = TemplateText | UserText | MediaPlaceholder


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """Token ids of a prompt and the offsets of its media."""

    token_ids: list[int]
    media_offsets: list[int]
    """By media item: index in `token_ids` of its first placeholder; -1 if the prompt does not contain it."""


@dataclass(frozen=True, slots=True)
class _Run:
    """Plain text that is encoded in one piece, and the number of the segment that each part comes from."""

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
        model_dir: the model's directory, of which `tokenizer.json` is read.
        placeholders: names of the placeholder tokens of the model's family.
        user_tokens: special tokens that may stand in user text, too.

    Raises:
        TokenizerFileError: the file is malformed or lacks a placeholder token.
    """

    def __init__(
        self, model_dir: Path, placeholders: Mapping[Modality, str] = PLACEHOLDERS, user_tokens: Collection[str] = ()
    ) -> None:
        source = (model_dir / "tokenizer.json").read_text("utf-8")
        try:
            self._full = Backend.from_str(source)
            plain = json.loads(source)
            plain["added_tokens"] = []
            self._plain = Backend.from_str(json.dumps(plain))
        except Exception as error:  # the backend raises bare Exception
            raise TokenizerFileError(f"the model's tokenizer.json cannot be read: {error}") from error
        vocabulary = self._full.get_vocab()
        self.num_tokens = max(vocabulary.values()) + 1
        """Size of the vocabulary, special tokens included; valid ids are below it."""
        self.max_token_bytes = max(map(len, vocabulary))
        """Bytes of the longest token."""
        self._special = {token.content: id_ for id_, token in self._full.get_added_tokens_decoder().items()}
        try:
            self.placeholder_ids: dict[Modality, int] = {
                modality: self._special[name] for modality, name in placeholders.items()
            }
            """Id of each modality's placeholder token."""
        except KeyError as error:
            raise TokenizerFileError(f"the model's tokenizer has no {error.args[0]} token") from error
        longest_first = sorted(self._special, key=len, reverse=True)
        self._splitter = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
        self._user_special = {name: self._special[name] for name in user_tokens if name in self._special}
        self._user_splitter = re.compile("(" + "|".join(map(re.escape, user_tokens)) + ")") if user_tokens else None
        self._byte_of = byte_alphabet()

    def encode(self, segments: Iterable[Segment], num_media_tokens: Sequence[int]) -> EncodedPrompt:
        """Token ids of `segments`, with placeholders spliced in.

        Args:
            segments: in prompt order.
            num_media_tokens: placeholders of each media item, by `MediaPlaceholder.index`.
        """
        ids: list[int] = []
        offsets = [-1] * len(num_media_tokens)
        for piece in self._pieces(segments):
            match piece:
                case _Run():
                    ids.extend(self._plain.encode(piece.text, add_special_tokens=False).ids)
                case (_, MediaPlaceholder(index, modality)):
                    offsets[index] = len(ids)
                    ids.extend([self.placeholder_ids[modality]] * num_media_tokens[index])
                case (_, token_id):
                    ids.append(token_id)
        return EncodedPrompt(ids, offsets)

    def count(self, segments: Sequence[Segment], num_media_tokens: Sequence[int]) -> list[int]:
        """Number of tokens of each segment in the result of `encode`.

        A token that spans two texts counts for the one it starts in.

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
        """Pieces to encode separately: runs of plain text; special tokens and media with their segment number."""
        run = _Run([], [])
        for number, atom in self._atoms(segments):
            if isinstance(atom, str):
                run.add(atom, number)
                continue
            if run.texts:
                yield run
                run = _Run([], [])
            if atom is not None:
                yield number, atom
        if run.texts:
            yield run

    def _atoms(self, segments: Iterable[Segment]) -> Iterator[tuple[int, str | int | MediaPlaceholder | None]]:
        """Plain texts, ids of special tokens, media, and None at a cut, each with the number of its segment."""
        for number, segment in enumerate(segments):
            match segment:
                case UserText(text):
                    for part in [text] if self._user_splitter is None else self._user_splitter.split(text):
                        yield number, self._user_special.get(part, part)
                case TemplateText(text, is_cut):
                    for part in self._splitter.split(text):
                        yield number, self._special.get(part, part)
                    if is_cut:
                        yield number, None
                case MediaPlaceholder():
                    yield number, segment

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of `token_ids`; incomplete characters become U+FFFD."""
        return self._full.decode(list(token_ids), skip_special_tokens=skip_special_tokens)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token; for a special token those of its name. Empty for an id without a token."""
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
    """The byte that each character of a byte-level BPE vocabulary represents.

    Source: Radford et al. 2019 (GPT-2): printable Latin-1 bytes represent themselves; the code points from 256 on
    represent the other bytes, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
