"""Charges the tokens the engine computes to the API key of the request."""

from collections.abc import Sequence

from model_executor.engine import Delta, Prompt
from server.auth.rate_limits import KeyUsage


class UsageObserver:
    """Watches the deltas of one request.

    Args:
        key: whose request it is; None where no key is needed, and nothing is charged.
        prompts: what the engine continues.
    """

    def __init__(self, key: KeyUsage | None, prompts: Sequence[Prompt]) -> None:
        """Nothing is charged yet."""
        self._key = key
        self._uncharged = {number: len(prompt.token_ids) for number, prompt in enumerate(prompts)}

    def observe(self, prompt: int, delta: Delta) -> None:
        """A delta has come; its prompt is charged with the first one, so that nobody pays for a refusal."""
        if self._key is None:
            return
        if prompt in self._uncharged:
            self._key.charge(self._uncharged.pop(prompt), "prompt")
        self._key.charge(len(delta.token_ids), "generation")
