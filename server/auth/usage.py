"""An engine that charges what it computes to the key that asked."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from model_executor.engine import Delta, Engine, EngineState, EngineStats, Prompt, SamplingParams
from server.auth.rate_limits import KeyUsage


class MeteredEngine:
    """The same engine, for requests of one key.

    Args:
        engine: what computes.
        account: whose.
    """

    def __init__(self, engine: Engine, account: KeyUsage) -> None:
        self._engine = engine
        self._account = account

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

    async def generate(self, request_id: str, prompt: Prompt, limits: SamplingParams) -> AsyncGenerator[Delta, None]:
        """As the engine's; the prompt is charged with the first delta, so that nobody pays for a refusal."""
        charged = False
        async with aclosing(self._engine.generate(request_id, prompt, limits)) as deltas:
            async for delta in deltas:
                if not charged:
                    charged = True
                    self._account.charge(len(prompt.token_ids), "prompt")
                self._account.charge(len(delta.token_ids), "generation")
                yield delta

    async def stats(self) -> EngineStats:
        """As the engine's."""
        return await self._engine.stats()
