"""Request fields that mean the same wherever text is generated: how to sample, when to stop, whether to stream."""

import re
from typing import Annotated

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from server.api.base_models import AlwaysFalse, RequestModel, Unsupported, at_most, bounded, conflict

_INT64 = 1 << 63
_Penalty = Annotated[float, Field(ge=-2, le=2)]
_StopString = Annotated[str, Field(min_length=1)]


def _token_id_keys(bias: dict[str, float]) -> dict[str, float]:
    for key in bias:
        if not re.fullmatch(r"0|[1-9][0-9]{0,8}", key):
            raise PydanticCustomError("invalid_value", 'must have token ids as keys, such as "1234"')
    return bias


class StreamOptions(RequestModel):
    """What a stream holds in addition to the deltas."""

    include_usage: bool = False
    """Send one last chunk with the token counts."""
    continuous_usage_stats: bool = False
    """Send the token counts so far with every chunk; only with `include_usage`."""
    include_obfuscation: bool = False
    """Accepted; this server pads no events."""


class StreamFields(RequestModel):
    """Whether the answer comes as a stream."""

    stream: bool = False
    """Send the answer as server-sent events while it is generated."""
    stream_options: StreamOptions | None = None
    """Only with `stream`."""

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of token counts."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def continuous_usage(self) -> bool:
        """Whether every chunk of a stream has token counts."""
        options = self.stream_options
        return options is not None and options.include_usage and options.continuous_usage_stats

    @model_validator(mode="after")
    def _agree_on_stream(self) -> "StreamFields":
        if self.stream_options is not None and not self.stream:
            raise conflict("stream_options", "is only allowed with 'stream'")
        return self


class SamplingFields(RequestModel):
    """How to sample, and when to stop."""

    n: Annotated[int, Field(ge=1, le=16)] = 1
    """How many answers to generate."""
    stop: (
        Annotated[
            Annotated[_StopString, Tag("<string>")] | Annotated[list[_StopString], bounded(4), Tag("<list>")],
            Discriminator(lambda value: "<list>" if isinstance(value, list) else "<string>"),
        ]
        | None
    ) = None
    """Where to stop: a string, or up to four."""
    seed: Annotated[int, Field(ge=-_INT64, lt=_INT64)] | None = None
    """Makes sampling repeatable."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    """0: always the most likely token."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample from the most likely tokens with this share of the probability."""
    presence_penalty: _Penalty = 0.0
    """Against tokens that occurred in the answer."""
    frequency_penalty: _Penalty = 0.0
    """Against tokens, by how often they occurred in the answer."""
    logit_bias: Annotated[
        dict[str, Annotated[float, Field(ge=-100, le=100)]],
        Field(max_length=1024),
        at_most(1024),
        AfterValidator(_token_id_keys),
    ] = {}
    """Added to the logits of the tokens with these ids."""

    top_k: Annotated[int, Field(ge=-1, lt=1 << 31)] = 0
    """Sample from this many of the most likely tokens; 0 or -1: from all."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Leave out tokens less likely than this share of the most likely one."""
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Divides the logits of tokens that occurred in prompt or answer; 1: none."""
    repeat_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    """llama.cpp's and Ollama's name of `repetition_penalty`, which wins."""
    min_tokens: Annotated[int, Field(ge=0)] = 0
    """No end before this many tokens."""
    ignore_eos: bool = False
    """Go on after the model's end token."""
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 31)]], bounded(64)] = []
    """Tokens to stop at, in addition to the model's own."""
    skip_special_tokens: bool = True
    """Leave special tokens out of the text."""
    include_stop_str_in_output: bool = False
    """Leave the stop string in the text."""

    # vLLM's, present and past, which would change the answer.
    guided_json: Unsupported = None
    guided_regex: Unsupported = None
    guided_choice: Unsupported = None
    guided_grammar: Unsupported = None
    prompt_logprobs: Unsupported = None
    use_beam_search: AlwaysFalse = False

    @property
    def prompt_penalty(self) -> float:
        """`repetition_penalty`, under whichever name it was sent."""
        if self.repeat_penalty is None or "repetition_penalty" in self.model_fields_set:
            return self.repetition_penalty
        return self.repeat_penalty

    @property
    def sent_fields(self) -> set[str]:
        """Names of the fields the client sent, `repetition_penalty` under either name."""
        return self.model_fields_set | ({"repetition_penalty"} if self.repeat_penalty is not None else set())

    @property
    def stop_strings(self) -> list[str]:
        """`stop` as a list."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])

    def _require_free_end(self) -> None:
        """Check that nothing moves the end of an answer that has a form or may be a call: these have ends of their own.

        Raises:
            PydanticCustomError: something does.
        """
        for name in ("ignore_eos", "min_tokens", "stop_token_ids", "include_stop_str_in_output"):
            if getattr(self, name):
                raise conflict(name, "cannot be combined with tools or a structured response format")

    def _require_min_tokens_within(self, max_tokens: int | None) -> None:
        """Check that `min_tokens` is not above the longest answer requested; validators of the request call it.

        Raises:
            PydanticCustomError: it is.
        """
        if max_tokens is not None and self.min_tokens > max_tokens:
            raise conflict("min_tokens", f"is above the longest answer of {max_tokens} tokens")
