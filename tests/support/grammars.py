"""Grammars written to byte by byte, and grammars nobody should compile."""

import codecs
import json
import random
import warnings
from typing import Any

import numpy as np

from model_executor.engine import Prompt

PROMPT = Prompt([100, 200, 300])
NUM_BYTES = 256
BOMBS = {
    "long strings": json.dumps(
        {
            "type": "object",
            "properties": {
                f"p{i}": {"type": "string", "pattern": f"^[a-z\\u00e0-\\uffff]{{0,{4000 + i}}}x$"} for i in range(40)
            },
        }
    ),
    "nested repetitions": json.dumps({"type": "string", "pattern": "^(((([a-z]{1,99}){1,99}){1,99}){1,99}){1,99}$"}),
}


def begins_text(written: bytearray) -> bool:
    """Whether more bytes could make valid UTF-8 of it; the engine allows overlong forms, which no model writes."""
    if len(written) > 1 and written[-2] == 0xED and written[-1] >= 0xA0:
        return False  # half of a surrogate, which the decoder notices one byte later
    try:
        codecs.getincrementaldecoder("utf-8")().decode(written)
    except UnicodeDecodeError:
        return False
    return True


class Writer:
    """Writes random answers byte by byte, as a model with one token per byte would."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch and transformers warn of each other while they are imported
            import xgrammar

        self.xgrammar = xgrammar
        vocabulary = [bytes([byte]) for byte in range(NUM_BYTES)] + [b"<end>"]
        info = xgrammar.TokenizerInfo(vocabulary, xgrammar.VocabType.RAW, stop_token_ids=[NUM_BYTES])
        self.compiler = xgrammar.GrammarCompiler(info, max_threads=1)
        self.mask = xgrammar.allocate_token_bitmask(1, info.vocab_size)

    def answers(self, schema: dict[str, Any], seed: int, count: int) -> list[str]:
        compiled = self.compiler.compile_json_schema(json.dumps(schema), any_whitespace=False, separators=(",", ":"))
        choose = random.Random(seed)
        return [self._answer(self.xgrammar.GrammarMatcher(compiled), choose) for _ in range(count)]

    def tagged(self, structural_tag: str, seed: int, count: int, *, after: str = "", until: str = "") -> list[str]:
        """Answers that begin with `after` and, if they may go on for ever, end with `until`."""
        compiled = self.compiler.compile_structural_tag(structural_tag)
        choose = random.Random(seed)
        answers = []
        for _ in range(count):
            matcher = self.xgrammar.GrammarMatcher(compiled)
            assert matcher.accept_string(after)
            answers.append(self._answer(matcher, choose, after, until))
        return answers

    def takes(self, structural_tag: str, text: str) -> bool:
        """Whether an answer may begin with `text`."""
        compiled = self.compiler.compile_structural_tag(structural_tag)
        return bool(self.xgrammar.GrammarMatcher(compiled).accept_string(text))

    def _answer(self, matcher: Any, choose: random.Random, after: str = "", until: str = "") -> str:
        written = bytearray(after.encode())
        while len(written) < 4000:
            matcher.fill_next_token_bitmask(self.mask)
            bits = np.unpackbits(self.mask.numpy().view(np.uint8), bitorder="little")
            allowed = np.flatnonzero(bits[: NUM_BYTES + 1]).tolist()
            token = choose.choice(allowed)
            if token == NUM_BYTES:
                return written.decode()
            if begins_text(written + bytes([token])):
                assert matcher.accept_token(token)
                written.append(token)
                if until and written.endswith(until.encode()):
                    return written.decode()
        raise AssertionError(f"does not end: {bytes(written[:200])!r}")
