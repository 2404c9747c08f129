"""A request's sampling fields reach the engine; what cannot fit the context does not."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_executor.engine import SamplingParams
from server.chat.reader import read_request
from server.chat.request import ChatCompletionRequest
from server.core.errors import BadRequestError
from server.generation.sampling_params import sampling_params


def limits(*, prompt: int = 10, context: int = 100, default: int | None = None, **changes: Any) -> SamplingParams:
    request = ChatCompletionRequest.model_validate(
        {"model": "m", "messages": [{"role": "user", "content": "x"}], **changes}
    )
    return sampling_params(
        read_request(request, "", default_max_tokens=default),
        num_prompt_tokens=prompt,
        param="messages",
        max_model_len=context,
        num_vocabulary_tokens=1000,
    )


def refusal(**changes: Any) -> BadRequestError:
    with pytest.raises(BadRequestError) as caught:
        limits(**changes)
    return caught.value


def test_defaults_are_those_of_the_api() -> None:
    assert limits() == SamplingParams(max_tokens=90)


@pytest.mark.parametrize(
    ("name", "value", "engine_name", "engine_value"),
    [
        ("n", 3, "n", 3),
        ("temperature", 0, "temperature", 0),
        ("top_p", 0.5, "top_p", 0.5),
        ("top_k", 7, "top_k", 7),
        ("top_k", -1, "top_k", 0),
        ("min_p", 0.1, "min_p", 0.1),
        ("presence_penalty", -1, "presence_penalty", -1),
        ("frequency_penalty", 1.5, "frequency_penalty", 1.5),
        ("repetition_penalty", 1.2, "repetition_penalty", 1.2),
        ("seed", -5, "seed", -5),
        ("stop", "END", "stop", ["END"]),
        ("stop", ["a", "b"], "stop", ["a", "b"]),
        ("stop_token_ids", [7, 8], "stop_token_ids", [7, 8]),
        ("include_stop_str_in_output", True, "include_stop_str_in_output", True),
        ("ignore_eos", True, "ignore_eos", True),
        ("min_tokens", 3, "min_tokens", 3),
        ("logprobs", True, "logprobs", 0),
        ("logprobs", False, "logprobs", None),
        ("logit_bias", {"5": -100}, "logit_bias", {5: -100}),
        ("skip_special_tokens", False, "skip_special_tokens", False),
        ("max_tokens", 7, "max_tokens", 7),
        ("max_completion_tokens", 7, "max_tokens", 7),
    ],
)
def test_every_sampling_field_reaches_the_engine(name: str, value: Any, engine_name: str, engine_value: Any) -> None:
    asked = limits(**{name: value})
    assert asked == msgspec.structs.replace(limits(), **{engine_name: engine_value})


def test_greedy_choices_sample_from_one_candidate() -> None:
    assert limits(n=2, temperature=0, top_k=50) == SamplingParams(max_tokens=90, n=2, temperature=1.0, top_k=1)
    assert limits(n=2, temperature=0.5, top_k=50).top_k == 50


def test_top_logprobs_is_the_number_of_alternatives() -> None:
    assert limits(logprobs=True, top_logprobs=5).logprobs == 5


def test_the_answer_gets_what_the_context_leaves() -> None:
    assert limits(prompt=99).max_tokens == 1
    assert limits(prompt=50, default=20).max_tokens == 20
    assert limits(prompt=50, default=80).max_tokens == 50


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "numbers"), [(100, None, ("100",)), (101, 1, ("101", "1")), (50, 51, ("50", "51"))]
)
def test_refuses_what_does_not_fit_with_the_numbers(
    prompt: int, max_tokens: int | None, numbers: tuple[str, ...]
) -> None:
    error = refusal(prompt=prompt, max_tokens=max_tokens)
    assert (error.param, error.code) == ("messages", "context_length_exceeded")
    assert all(number in error.message for number in ("100", *numbers))


def test_refuses_min_tokens_beyond_what_is_left() -> None:
    assert refusal(min_tokens=91).param == "min_tokens"


@pytest.mark.parametrize(
    ("changes", "param"),
    [({"logit_bias": {"1000": 1}}, "logit_bias"), ({"stop_token_ids": [999, 1000]}, "stop_token_ids[1]")],
)
def test_refuses_token_ids_the_model_does_not_have(changes: dict[str, Any], param: str) -> None:
    assert refusal(**changes).param == param


@given(prompt=st.integers(1, 200), asked=st.none() | st.integers(1, 200), default=st.none() | st.integers(1, 200))
def test_prompt_and_answer_never_exceed_the_context(prompt: int, asked: int | None, default: int | None) -> None:
    try:
        answer = limits(prompt=prompt, default=default, max_tokens=asked).max_tokens
    except BadRequestError:
        assert prompt + (asked or 1) > 100
    else:
        assert answer >= 1 and prompt + answer <= 100
        assert asked is None or answer == asked
