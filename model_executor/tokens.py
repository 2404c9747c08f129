"""Segments of a prompt to token ids, with the model's own tokenizer; control and client text never mix.

Control text may hold special tokens (`<|im_start|>`); in client text the same characters are plain text. Runs of plain
text are encoded in one piece, across the border between control and client text, so the ids equal those of the whole
prompt encoded at once wherever the client typed no special token.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer as Backend

from model_executor.checkpoint import CheckpointError
from model_executor.engine import Modality


@dataclass(frozen=True, slots=True)
class ControlText:
    """Text of the prompt format; special tokens in it are special."""

    text: str


@dataclass(frozen=True, slots=True)
class ClientText:
    """Text somebody wrote; nothing in it is special."""

    text: str


@dataclass(frozen=True, slots=True)
class MediaSlot:
    """The place of one medium's placeholders; the delimiters around it are control text."""

    index: int
    """Which medium, counted from 0 over the whole request."""
    modality: Modality


Segment = ControlText | ClientText | MediaSlot


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of a prompt and where its media stand."""

    token_ids: list[int]
    media_offsets: list[int]
    """By medium index: index in `token_ids` of the first placeholder."""


class Tokenizer:
    """A checkpoint's tokenizer.

    Args:
        folder: the model folder; `tokenizer.json` is read.

    Raises:
        CheckpointError: the file is malformed or lacks Qwen's special tokens.
    """

    def __init__(self, folder: Path) -> None:
        """See the class."""
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
            num_media_tokens: placeholders of each medium, by `MediaSlot.index`.
        """
        ids: list[int] = []
        offsets = [-1] * len(num_media_tokens)
        run: list[str] = []

        def flush() -> None:
            if run:
                ids.extend(self._plain.encode("".join(run), add_special_tokens=False).ids)
                run.clear()

        for segment in segments:
            match segment:
                case ClientText(text):
                    run.append(text)
                case ControlText(text):
                    for piece in self._splitter.split(text):
                        if piece in self._special:
                            flush()
                            ids.append(self._special[piece])
                        elif piece:
                            run.append(piece)
                case MediaSlot(index, modality):
                    flush()
                    offsets[index] = len(ids)
                    ids.extend([self._placeholders[modality]] * num_media_tokens[index])
        flush()
        return Encoded(ids, offsets)

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
