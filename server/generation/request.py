"""A request for generated text in the form that all APIs share: a prompt, how to sample, the format of the output."""

from dataclasses import dataclass

from model_executor.engine import Grammar
from server.generation.sampling_fields import SamplingFields
from server.prompt.conversation import Conversation
from server.prompt.plain import PlainPrompt


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """A request for generated text; errors name the client's own fields, which its parts carry as `param`."""

    id: str
    """Of the answer; the engine's log has it, too."""
    model: str
    """The served model or one of its adapters."""
    tenant: str
    """Whose caches may be used; the empty string where there is one tenant only."""
    prompt: Conversation | tuple[PlainPrompt, ...]
    """A conversation to answer, or prompts to continue, each by itself."""
    sampling: SamplingFields
    max_output_tokens: int | None
    """Longest output the client requests; None where it names none."""
    default_max_tokens: int | None
    """Longest output where the client names none; None for what the context leaves."""
    num_top_logprobs: int | None = None
    """Alternatives to report per token; None where no log-probabilities are requested."""
    echoes: bool = False
    """Whether every output begins with its prompt, which then has log-probabilities, too."""
    continuous_usage: bool = False
    """Whether every event comes with what was generated so far."""
    grammar: Grammar | None = None
    """What every output follows; None for free text."""

    relaxed: tuple[str, ...] = ()
    """Paths of schemas' keywords that are left out because they cannot be enforced."""

    @property
    def may_call(self) -> bool:
        """Whether outputs may have calls of functions."""
        return isinstance(self.prompt, Conversation) and self.prompt.tools is not None

    @property
    def num_outputs(self) -> int:
        """Outputs of all prompts together."""
        return self.sampling.n * (1 if isinstance(self.prompt, Conversation) else len(self.prompt))
