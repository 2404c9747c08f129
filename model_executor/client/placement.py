"""Which engine of several answers a request: the one that has its media or the head of its text in its caches. Pure.

Every key ranks all engines by a hash (rendezvous hashing), so that a lost engine moves only the requests it had, and a
returned one gets exactly these back. An engine with much more than its share is passed over (consistent hashing with
bounded loads), so that one popular image, or one system prompt that all requests begin with, occupies all engines.

Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998); Mirrokni, Thorup and
Zadimoghaddam, "Consistent hashing with bounded loads" (2018).
"""

import hashlib
import math
from collections.abc import Mapping

from model_executor.engine import Prompt

HEAD_TOKENS = 128
"""Tokens at the beginning of a prompt without media that choose its engine: the prefix cache's block on a CPU. What
shorter prompts have in common is computed again in less than a step."""
BALANCE = 1.5
"""An engine's share of the running requests, relative to the mean, up to which it gets more of its own."""


def placement_key(prompt: Prompt) -> bytes:
    """What the requests have in common that one engine should get: the first media item, or else the text's head."""
    if prompt.media:
        return prompt.media[0].digest.encode()
    owner = f"{prompt.cache_salt or ''}\0{prompt.adapter or ''}\0"
    return owner.encode() + b"".join(token.to_bytes(4, "big") for token in prompt.token_ids[:HEAD_TOKENS])


def choose(key: bytes, num_running: Mapping[int, int]) -> int:
    """The engine for a request.

    Args:
        key: from `placement_key`.
        num_running: the requests of each engine that may be chosen, by its number; not empty.
    """
    most = math.ceil(BALANCE * (sum(num_running.values()) + 1) / len(num_running))
    ranked = sorted(num_running, key=lambda number: _weight(key, number), reverse=True)
    return next(number for number in ranked if num_running[number] < most)  # not all are above the mean


def _weight(key: bytes, number: int) -> bytes:
    return hashlib.blake2b(key, digest_size=8, salt=number.to_bytes(4, "big")).digest()
