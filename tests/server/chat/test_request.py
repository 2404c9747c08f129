"""What the request model takes, what it refuses, and how the refusal names the field."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from server.api.validation import refusal
from server.chat.request import ChatCompletionRequest
from tests.support.refusals import refused

USER = {"role": "user", "content": "Hi."}
URL = "data:image/png;base64,AA=="


def parse(**changes: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate({"model": "m", "messages": [USER], **changes})


ACCEPTED: dict[str, list[Any]] = {
    "temperature": [0, 0.0, 1, 2],
    "top_p": [0.0001, 1],
    "presence_penalty": [-2, 2],
    "frequency_penalty": [-2.0, 2.0],
    "n": [1, 16],
    "seed": [0, -(2**63), 2**63 - 1],
    "max_tokens": [1, 10**9],
    "max_completion_tokens": [1],
    "stop": ["a", [], ["a"], ["a", "b", "c", "d"]],
    "logit_bias": [{}, {"1": -100, "42": 100.0}],
    "top_k": [-1, 0, 1, 1000],
    "min_p": [0, 1],
    "repetition_penalty": [0.01, 2],
    "min_tokens": [0, 5],
    "ignore_eos": [True, False],
    "stop_token_ids": [[], [1, 2]],
    "skip_special_tokens": [True, False],
    "include_stop_str_in_output": [True, False],
    "add_generation_prompt": [True, False],
    "add_vision_id": [True],
    "include": [[], ["media"]],
    "response_format": [{"type": "text"}, {"type": "json_object"}],
    "structured_outputs": [{"regex": "a"}],
    "modalities": [["text"]],
    "user": ["u"],
    "metadata": [{"a": "b"}],
    "store": [True, False],
    "service_tier": ["auto"],
    "safety_identifier": ["s"],
    "prompt_cache_key": ["k"],
    "prompt_cache_retention": ["24h"],
    "prediction": [{"type": "content", "content": "x"}],
    "verbosity": ["low", "medium", "high"],
    "reasoning_effort": ["low"],
    "logprobs": [True, False],
    "echo": [False],
    "use_beam_search": [False],
    "repeat_penalty": [0.01, 2],
    "max_new_tokens": [1],
    "mm_processor_kwargs": [{"min_pixels": 3136, "max_pixels": 50176, "fps": 2.0}, {"size": {"longest_edge": 784}}],
    "media_io_kwargs": [{"video": {"num_frames": 16, "fps": 1.0}}, {"video": {"num_frames": -1}}],
    "chat_template_kwargs": [{}, {"enable_thinking": False, "words": ["a"]}],
}
REFUSED: dict[str, list[Any]] = {
    "echo": [1],
    "use_beam_search": ["no"],
    "repeat_penalty": [0, -1, 101, "1"],
    "max_new_tokens": [0, -1, 1.5, "1"],
    "mm_processor_kwargs": [1, []],
    "media_io_kwargs": ["fps", []],
    "chat_template_kwargs": [[], {str(number): 1 for number in range(65)}],
    "temperature": [-0.1, 2.1, "1", True, math.nan, math.inf, [], {}],
    "top_p": [0, -1, 1.01, "0.5"],
    "presence_penalty": [-2.1, 2.1],
    "frequency_penalty": [-2.1, 2.1],
    "n": [0, 17, 1.5, "2", True, 10**30],
    "seed": [2**63, -(2**63) - 1, 1.5, "1"],
    "max_tokens": [0, -1, 1.0, "5"],
    "max_completion_tokens": [0],
    "stop": [1, {}],
    "top_k": [-2, 1.5],
    "min_p": [-0.1, 1.1],
    "repetition_penalty": [0, -1],
    "min_tokens": [-1],
    "ignore_eos": [1, "true"],
    "stream": [1, "true", []],
    "stop_token_ids": [1],
    "logprobs": [5, "true"],
    "include": ["media"],
    "user": [1],
    "model": ["", 1, []],
    "messages": [[], "hi", {}],
    "logit_bias": [[], {"a": 1}, {"-1": 1}, {"01": 1}],
    "skip_special_tokens": [1, "false"],
    "include_stop_str_in_output": [0, []],
    "add_generation_prompt": ["yes"],
    "add_vision_id": [1],
    "continue_final_message": [1, "true"],
    "parallel_tool_calls": [1, "true"],
    "top_logprobs": [-1, 21, 1.0, "3", True],
    "response_format": ["json_object", []],
    "structured_outputs": ["a", []],
    "stream_options": [True, []],
    "tools": [{}, "paint"],
    "tool_choice": [1, []],
    "modalities": ["text"],
}
UNBOUNDED = (
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "prediction",
    "verbosity",
    "reasoning_effort",
)
"""Taken and without effect here."""
UNSUPPORTED = (
    "functions",
    "function_call",
    "audio",
    "web_search_options",
    "moderation",
    "chat_template",
    "documents",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "prompt_logprobs",
)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in ACCEPTED for value in ACCEPTED[name]])
def test_takes_values_in_range(name: str, value: Any) -> None:
    taken = parse(**{name: value}).model_dump(mode="json", exclude_unset=True)[name]
    assert taken == value


OTHERS = (
    "stream",
    "stream_options",
    "top_logprobs",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "continue_final_message",
    "prompt_cache_options",
)
"""May be left out like the others; what they take depends on other fields."""


def test_every_field_is_tried_without_within_and_beyond_its_bounds() -> None:
    fields = set(ChatCompletionRequest.model_fields)
    assert {*ACCEPTED, *UNSUPPORTED, *OTHERS, "model", "messages"} == fields
    assert {*REFUSED, *UNSUPPORTED, *UNBOUNDED} == fields


@pytest.mark.parametrize("name", [*ACCEPTED, *UNSUPPORTED, *OTHERS])
def test_null_is_the_same_as_absent(name: str) -> None:
    assert parse(**{name: None}) == parse()


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in REFUSED for value in REFUSED[name]])
def test_refuses_values_out_of_range_by_name(name: str, value: Any) -> None:
    error = refused(parse, **{name: value})
    assert error.param == name
    assert error.code in ("invalid_value", "invalid_type")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", 1]}, "stop[1]"),
        ({"mm_processor_kwargs": {"max_pixels": 0}}, "mm_processor_kwargs.max_pixels"),
        ({"mm_processor_kwargs": {"fps": [2.0, 0.0]}}, "mm_processor_kwargs.fps[1]"),
        ({"media_io_kwargs": {"video": {"num_frames": -2}}}, "media_io_kwargs.video.num_frames"),
        ({"logit_bias": {"7": 100.5}}, "logit_bias.7"),
        ({"stop_token_ids": [1, -1]}, "stop_token_ids[1]"),
        ({"include": ["everything"]}, "include[0]"),
        ({"modalities": ["text", "audio"]}, "modalities[1]"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"stream": True, "stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
    ],
)
def test_names_the_element_at_fault(body: dict[str, Any], param: str) -> None:
    assert refused(parse, **body).param == param


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"top_logprobs": 3}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": -1, "logprobs": True}, "top_logprobs", "invalid_value"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens", "invalid_value"),
        ({"continue_final_message": True}, "continue_final_message", "invalid_value"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message", "invalid_value"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {}}},
            "response_format.json_schema.name",
            "missing_required_parameter",
        ),
        ({"response_format": {}}, "response_format.type", "missing_required_parameter"),
        ({"temprature": 1}, "temprature", "unknown_parameter"),
        ({"temprature": None}, "temprature", "unknown_parameter"),
        ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage", "unknown_parameter"),
        ({"model": None}, "model", "missing_required_parameter"),
        ({"messages": None}, "messages", "missing_required_parameter"),
    ],
)
def test_refuses_combinations_and_names_by_name(body: dict[str, Any], param: str, code: str) -> None:
    error = refused(parse, **body)
    assert (error.param, error.code) == (param, code)


@pytest.mark.parametrize("name", ["echo", "use_beam_search"])
def test_refuses_to_turn_on_what_is_not_there(name: str) -> None:
    error = refused(parse, **{name: True})
    assert (error.param, error.code) == (name, "unsupported_value")


@pytest.mark.parametrize("name", UNSUPPORTED)
@pytest.mark.parametrize("value", [[], {}, "auto", True, [{"type": "function"}]])
def test_refuses_what_is_not_served_by_name(name: str, value: Any) -> None:
    error = refused(parse, **{name: value})
    assert (error.param, error.code) == (name, "unsupported_parameter")


@pytest.mark.parametrize(
    ("message", "param", "code"),
    [
        ("hi", "messages[0]", "invalid_type"),
        ({"content": "x"}, "messages[0].role", "missing_required_parameter"),
        ({"role": "robot", "content": "x"}, "messages[0].role", "unsupported_value"),
        ({"role": "function", "content": "x", "name": "f"}, "messages[0].role", "unsupported_value"),
        ({"role": ["user"], "content": "x"}, "messages[0].role", "unsupported_value"),
        ({"role": "user"}, "messages[0].content", "missing_required_parameter"),
        ({"role": "user", "content": None}, "messages[0].content", "missing_required_parameter"),
        ({"role": "user", "content": []}, "messages[0].content", "invalid_value"),
        ({"role": "user", "content": 5}, "messages[0].content", "invalid_type"),
        ({"role": "user", "content": "x", "mood": 1}, "messages[0].mood", "unknown_parameter"),
        ({"role": "assistant", "content": None}, "messages[0].content", "missing_required_parameter"),
        (
            {"role": "assistant", "content": "x", "function_call": {}},
            "messages[0].function_call",
            "unsupported_parameter",
        ),
        ({"role": "assistant", "content": None, "tool_calls": []}, "messages[0].content", "missing_required_parameter"),
    ],
)
def test_refuses_a_wrong_message_by_name(message: Any, param: str, code: str) -> None:
    error = refused(parse, messages=[message])
    assert (error.param, error.code) == (param, code)


PART = "messages[0].content[1]"


@pytest.mark.parametrize(
    ("part", "param", "code"),
    [
        ("text", PART, "invalid_type"),
        ({"text": "x"}, f"{PART}.type", "missing_required_parameter"),
        ({"type": "text"}, f"{PART}.text", "missing_required_parameter"),
        ({"type": "text", "text": 5}, f"{PART}.text", "invalid_type"),
        ({"type": "text", "text": "x", "extra": 1}, f"{PART}.extra", "unknown_parameter"),
        ({"type": "smell", "smell": "rose"}, f"{PART}.type", "unsupported_value"),
        ({"type": "file"}, f"{PART}.file", "missing_required_parameter"),
        ({"type": "file", "file": {}}, f"{PART}.file.file_id", "missing_required_parameter"),
        ({"type": "file", "file": {"file_id": "f"}}, f"{PART}.file.file_id", "file_not_found"),
        ({"type": "file", "file": {"file_id": 5}}, f"{PART}.file.file_id", "invalid_type"),
        ({"type": "file", "file": {"file_data": "QUJD"}}, f"{PART}.file.file_data", "invalid_value"),
        ({"type": "file", "file": {"file_data": "http://x/"}}, f"{PART}.file.file_data", "invalid_value"),
        ({"type": "file", "file": {"file_data": URL, "foo": 1}}, f"{PART}.file.foo", "unknown_parameter"),
        ({"type": "file", "file": {"file_data": URL, "fps": "1"}}, f"{PART}.file.fps", "invalid_type"),
        ({"type": "input_audio", "input_audio": {}}, f"{PART}.type", "unsupported_value"),
        ({"type": "image_url"}, f"{PART}.image_url", "missing_required_parameter"),
        ({"type": "image_url", "image_url": [URL]}, f"{PART}.image_url", "invalid_type"),
        ({"type": "image_url", "image_url": ""}, f"{PART}.image_url.url", "invalid_value"),
        ({"type": "image_url", "image_url": {}}, f"{PART}.image_url.url", "missing_required_parameter"),
        ({"type": "image_url", "image_url": {"url": ""}}, f"{PART}.image_url.url", "invalid_value"),
        ({"type": "image_url", "image_url": {"url": URL, "foo": 1}}, f"{PART}.image_url.foo", "unknown_parameter"),
        ({"type": "image_url", "image_url": {"url": URL}, "foo": 1}, f"{PART}.foo", "unknown_parameter"),
        ({"type": "image_url", "image_url": {"url": URL, "detail": "x"}}, f"{PART}.image_url.detail", "invalid_value"),
        ({"type": "image_url", "image_url": {"url": URL}, "fps": 2}, f"{PART}.fps", "unknown_parameter"),
        ({"type": "image", "image": [URL]}, f"{PART}.image", "invalid_type"),
        ({"type": "image", "image": URL, "max_pixels": "9"}, f"{PART}.max_pixels", "invalid_type"),
        ({"type": "video", "video": []}, f"{PART}.video", "invalid_value"),
        ({"type": "video", "video": [URL, 5]}, f"{PART}.video[1]", "invalid_type"),
        ({"type": "video", "video": {"url": URL}}, f"{PART}.video", "invalid_type"),
        ({"type": "video_url", "video_url": {"url": URL, "fps": "2"}}, f"{PART}.video_url.fps", "invalid_type"),
        ({"type": "video", "video": URL, "nframes": 1}, f"{PART}.nframes", "invalid_value"),
    ],
)
def test_refuses_a_wrong_part_by_name(part: Any, param: str, code: str) -> None:
    content = [{"type": "text", "text": "x"}, part]
    error = refused(parse, messages=[{"role": "user", "content": content}])
    assert (error.param, error.code) == (param, code)


@pytest.mark.parametrize("role", ["system", "developer"])
def test_refuses_media_in_system_messages(role: str) -> None:
    content = [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": URL}}]
    error = refused(parse, messages=[{"role": role, "content": content}])
    assert (error.param, error.code) == (f"{PART}.type", "unsupported_value")


def test_takes_the_messages_an_sdk_sends_back() -> None:
    answer: dict[str, Any] = {
        "role": "assistant",
        "content": "x",
        "refusal": None,
        "audio": None,
        "annotations": [],
        "function_call": None,
        "tool_calls": None,
    }
    assert parse(messages=[USER, answer, USER]).messages[1].content == "x"


def test_max_completion_tokens_wins() -> None:
    assert parse(max_tokens=5).max_answer_tokens == 5
    assert parse(max_tokens=5, max_completion_tokens=7).max_answer_tokens == 7
    assert parse(max_tokens=None).max_answer_tokens is None
    assert parse(max_new_tokens=3).max_answer_tokens == 3
    assert parse(max_new_tokens=3, max_tokens=5).max_answer_tokens == 5


def test_the_penalty_has_a_second_name() -> None:
    assert parse(repeat_penalty=1.3).prompt_penalty == 1.3
    assert parse(repeat_penalty=1.3, repetition_penalty=1.2).prompt_penalty == 1.2
    assert parse().prompt_penalty == 1.0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(ChatCompletionRequest.model_fields)), JSON, max_size=4))
def test_only_validation_errors_come_out_of_any_json(changes: dict[str, Any]) -> None:
    try:
        parse(**changes)
    except ValidationError as error:
        body = refusal(error).body()["error"]
        assert len(json.dumps(body)) < 32_000


@given(JSON)
def test_any_message_and_part_is_taken_or_refused(value: Any) -> None:
    for messages in ([value], [{"role": "user", "content": value}], [{"role": "user", "content": [value]}]):
        try:
            parse(messages=messages)
        except ValidationError as error:
            param = refusal(error).param
            assert param is not None and param.startswith("messages[0]")
