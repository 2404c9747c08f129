"""Charges the tokens that the engine computes to the API key of the request."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from model_executor.engine import Delta, Engine, EngineState, EngineStats, Prompt, SamplingParams
from server.auth.rate_limits import KeyUsage


class MeteredEngine:
    """An engine that charges its tokens to one key.

    Args:
        engine: computes the answers.
        usage: of the key.
    """

    def __init__(self, engine: Engine, usage: KeyUsage) -> None:
        self._engine = engine
        self._usage = usage

    @property
    def state(self) -> EngineState:
        """As the engine's."""
        return self._engine.state

    @property
    def failure(self) -> str | None:
        """As the engine's."""
        return self._engine.failure

    @property
    def max_model_len(self) -> int:
        """As the engine's."""
        return self._engine.max_model_len

    async def generate(self, request_id: str, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Delta, None]:
        """As the engine's; the prompt is charged with the first delta, so that a rejected request costs nothing."""
        is_prompt_charged = False
        async with aclosing(self._engine.generate(request_id, prompt, params)) as deltas:
            async for delta in deltas:
                if not is_prompt_charged:
                    is_prompt_charged = True
                    self._usage.charge(len(prompt.token_ids), "prompt")
                self._usage.charge(len(delta.token_ids), "generation")
                yield delta

    async def stats(self) -> EngineStats:
        """As the engine's."""
        return await self._engine.stats()
