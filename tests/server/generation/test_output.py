"""Deltas of the engine read as events: text, calls, log-probabilities, counts."""

import pytest

from model_executor.engine import Delta, Prompt
from model_executor.processor.tokenizer import Tokenizer
from server.generation.output import OutputReader, UnfinishedOutputError
from server.generation.output_events import (
    ArgumentsDelta,
    Finish,
    OutputEvent,
    OutputStart,
    TextDelta,
    ToolCallStart,
)
from server.generation.request import GenerationRequest
from server.generation.sampling_fields import SamplingFields
from server.prompt.plain import PlainPrompt
from tests.support.fakes import say
from tests.support.outputs import END, position, reader

PROMPT = Prompt([1, 2, 3])
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


def wish(*, n: int = 1, num_top_logprobs: int | None = None) -> GenerationRequest:
    return GenerationRequest(
        id="id",
        model="m",
        tenant="",
        prompt=(PlainPrompt("x", "prompt"),),
        sampling=SamplingFields(n=n),
        max_output_tokens=None,
        default_max_tokens=None,
        num_top_logprobs=num_top_logprobs,
    )


def read(made: OutputReader, *deltas: Delta) -> list[OutputEvent]:
    return [event for delta in deltas for event in made.read(0, delta)]


def test_each_output_starts_and_finishes_once(tokenizer: Tokenizer) -> None:
    made = reader(tokenizer, PROMPT, wish(n=2))
    first, second = say("a", "b"), say("", "c", index=1, finish="length")
    assert read(made, first[0], second[0], second[1], first[1]) == [
        OutputStart(0),
        TextDelta(0, "a"),
        OutputStart(1),
        TextDelta(1, "c"),
        Finish(1, "length"),
        TextDelta(0, "b"),
        Finish(0, "stop"),
    ]
    assert (made.usage().prompt_tokens, made.usage().output_tokens) == (3, 4)
    made.require_finished()


def test_outputs_are_numbered_over_all_prompts(tokenizer: Tokenizer) -> None:
    made = OutputReader(
        [PROMPT, PROMPT],
        num_outputs=2,
        may_call=False,
        num_top_logprobs=None,
        tokenizer=tokenizer,
        end_token_ids=(END,),
    )
    assert made.read(1, Delta(1, "a", [1], num_cached_tokens=2))[0] == OutputStart(3)
    made.read(0, Delta(0, "a", [1], num_cached_tokens=1))
    made.read(0, Delta(0, "a", [1]))
    assert (made.usage().prompt_tokens, made.usage().cached_tokens) == (6, 3)


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_calls_are_found_where_there_may_be_some(tokenizer: Tokenizer, size: int) -> None:
    text = f"Hm.{CALL}"
    deltas = say(*[text[start : start + size] for start in range(0, len(text), size)])
    events = read(reader(tokenizer, PROMPT, wish(), may_call=True), *deltas)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Hm."
    (call,) = [event for event in events if isinstance(event, ToolCallStart)]
    assert (call.call, call.name) == (0, "f") and call.call_id.startswith("call_")
    assert "".join(event.text for event in events if isinstance(event, ArgumentsDelta)) == '{"a": 1}'
    assert events[-1] == Finish(0, "tool_calls")
    plain = read(reader(tokenizer, PROMPT, wish()), *deltas)
    assert "".join(event.text for event in plain if isinstance(event, TextDelta)) == text
    assert plain[-1] == Finish(0, "stop")


def test_a_cut_call_is_none_to_make(tokenizer: Tokenizer) -> None:
    for finish in ("stop", "length"):
        events = read(reader(tokenizer, PROMPT, wish(), may_call=True), *say(CALL[:45], finish=finish))
        assert events[-1] == Finish(0, finish)


def test_an_engine_that_ends_early_is_a_fault(tokenizer: Tokenizer) -> None:
    made = reader(tokenizer, PROMPT, wish(n=2))
    read(made, *say("a"))
    with pytest.raises(UnfinishedOutputError):
        made.require_finished()


def test_logprobs_come_once_also_without_text(tokenizer: Tokenizer) -> None:
    deltas = [
        Delta(0, "", [1], logprobs=[position(1, -1.0)]),
        Delta(0, "ab", [2], logprobs=[position(2, -2.0)]),
        Delta(0, "", [END], logprobs=[position(END, -3.0)], finish_reason="stop"),
    ]
    events = read(reader(tokenizer, PROMPT, wish(num_top_logprobs=0)), *deltas)
    texts = [event for event in events if isinstance(event, TextDelta)]
    assert [(event.text, [token.logprob for token in event.logprobs]) for event in texts] == [
        ("", [-1.0]),
        ("ab", [-2.0]),
    ]
    unasked = read(reader(tokenizer, PROMPT, wish()), *deltas)
    assert not any(event.logprobs for event in unasked if isinstance(event, TextDelta))


def test_minus_infinity_and_not_a_number_become_the_lowest_number(tokenizer: Tokenizer) -> None:
    top = [(2, float("-inf")), (3, float("nan"))]
    delta = Delta(0, "a", [1], logprobs=[position(1, float("-inf"), *top)], finish_reason="length")
    (token,) = (
        token
        for event in read(reader(tokenizer, PROMPT, wish(num_top_logprobs=2)), delta)
        if isinstance(event, TextDelta)
        for token in event.logprobs
    )
    assert token.logprob == -9999.0
    assert [likely.logprob for likely in token.top] == [-9999.0, -9999.0]
