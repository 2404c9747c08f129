"""Checks that a prompt's placeholder tokens agree with its media items; pure.

Both sides of the process boundary check it, because vLLM would not notice and compute wrong embeddings.
"""

from collections.abc import Mapping

import numpy as np

from model_executor.engine import Modality, Prompt
from model_executor.processor.geometry import Grid


def find_placeholder_fault(prompt: Prompt, placeholder_ids: Mapping[Modality, int]) -> str | None:
    """What is wrong with a prompt's placeholders, if anything.

    Args:
        prompt: of a request; its media items are in order of `offset`.
        placeholder_ids: token id of each modality.

    Returns:
        None if each item has exactly its grid's number of its modality's placeholders at its offset, no two items
        overlap, and the prompt has no other placeholders; otherwise what is wrong.
    """
    ids = np.asarray(prompt.token_ids)
    end = 0
    for item in prompt.media:
        run = ids[item.offset : item.offset + item.num_tokens]
        is_complete = item.num_tokens == len(run) == Grid(*item.grid).num_tokens
        if item.offset < end or not is_complete or (run != placeholder_ids[item.modality]).any():
            return f"the placeholders at {item.offset} do not match a media item of grid {item.grid}"
        end = item.offset + item.num_tokens
    num_placeholders = int(np.isin(ids, list(placeholder_ids.values())).sum())
    if num_placeholders != sum(item.num_tokens for item in prompt.media):
        return "the prompt has placeholders that belong to no media item"
    return None
