"""Calls found in a growing text: the same however it is cut, and nothing lost."""

import itertools
import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.tools.hermes import AFTER_ARGUMENTS, BEFORE_ARGUMENTS
from server.tools.parser import ArgumentsPiece, CallPiece, TextPiece, ToolCallParser

CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


@dataclass
class Answer:
    said: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    is_cut: bool = False


def read(*deltas: str) -> Answer:
    reader = ToolCallParser()
    answer = Answer()
    for found in [*(one for delta in deltas for one in reader.feed(delta)), *reader.end()]:
        match found:
            case TextPiece(text):
                answer.said += text
            case CallPiece(name):
                answer.calls.append((name, ""))
            case ArgumentsPiece(text):
                name, before = answer.calls[-1]
                answer.calls[-1] = (name, before + text)
    answer.is_cut = reader.is_cut
    return answer


@pytest.mark.parametrize(
    ("text", "said", "calls"),
    [
        ("", "", []),
        ("Hello.\n", "Hello.\n", []),
        (CALL, "", [("f", '{"a": 1}')]),
        (f"Let me look.\n{CALL}", "Let me look.", [("f", '{"a": 1}')]),
        (f"{CALL}\n{CALL}\n", "", [("f", '{"a": 1}')] * 2),
        (f"{CALL}\nDone. ", "\nDone. ", [("f", '{"a": 1}')]),
        ('<tool_call>{"name":"g-1","arguments":{}}</tool_call>', "", [("g-1", "{}")]),
        ('<tool_call>\n{"name": "f", "arguments": {"a": "}\\"{</tool_call>"}}\n</tool_call>', "",
         [("f", '{"a": "}\\"{</tool_call>"}')]),
    ],
)  # fmt: skip
def test_tells_what_is_said_from_what_is_called(text: str, said: str, calls: list[tuple[str, str]]) -> None:
    assert read(text) == read(*text) == Answer(said, calls)


@pytest.mark.parametrize(
    "text",
    [
        "a < b, a <tool, <tool_call",
        " <tool_call> is a tag",
        "<tool_call>\n[1]\n</tool_call>",
        '<tool_call>\n{"name": "", "arguments": {}}',
        '<tool_call>\n{"name": "a b", "arguments": {}}',
        '<tool_call>\n{"name": "é", "arguments": {}}',
        '<tool_call>\n{"arguments": {}, "name": "f"}\n</tool_call>',
        '<tool_call>\n{"name": "f", "arguments": "{}"}\n</tool_call>',
        '<tool_call>\n{"name": "f", "arguments": ',
        '<tool_call>\n{"name": "' + "f" * 131 + '", "arguments": {}}',
        "<tool_call>" + " " * 20 + '{"name": "f", "arguments": {}}',
        "x \n \n ",
    ],
)
def test_what_only_looks_like_a_call_is_said(text: str) -> None:
    assert read(text) == read(*text) == Answer(text)


def test_a_call_may_follow_what_only_looked_like_one() -> None:
    assert read(f"<tool_call> <tool_call>\n{{ {CALL}") == Answer("<tool_call> <tool_call>\n{", [("f", '{"a": 1}')])


def test_what_follows_arguments_without_closing_the_call_is_said() -> None:
    text = '<tool_call>\n{"name": "f", "arguments": {}, "more": 1}\n</tool_call>'
    assert read(text) == read(*text) == Answer(', "more": 1}\n</tool_call>', [("f", "{}")])


def test_arguments_that_are_cut_are_told_as_far_as_they_came() -> None:
    text = '<tool_call>\n{"name": "f", "arguments": {"a": "b'
    assert read(text) == read(*text) == Answer("", [("f", '{"a": "b')], is_cut=True)
    for end in ("}", "}\n</tool_ca"):
        assert read(text + '"}' + end) == Answer("", [("f", '{"a": "b"}')])


def test_text_and_arguments_come_as_soon_as_they_are_certain() -> None:
    reader = ToolCallParser()
    assert reader.feed("Well, <b>") == [TextPiece("Well, <b>")]
    assert reader.feed(" ok\n<tool") == [TextPiece(" ok")]
    assert reader.feed('_call>\n{"name": "f", "argu') == []
    assert reader.feed('ments": {"a": "') == [CallPiece("f"), ArgumentsPiece('{"a": "')]
    assert reader.feed("x") == [ArgumentsPiece("x")]
    assert reader.feed('"}') == [ArgumentsPiece('"}')]
    assert reader.feed("}\n</tool_call>") == reader.end() == []


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=6)
    | st.sampled_from(["}", '"{', "\\", "</tool_call>"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
CALLS = st.tuples(st.sampled_from(["f", "get_weather", "a-b"]), st.dictionaries(st.text(max_size=3), JSON, max_size=3))
SAID = st.text(st.sampled_from("a< \n{}é/>"), max_size=8)


@given(st.lists(st.one_of(SAID, CALLS), max_size=6))
def test_calls_and_what_is_said_come_out_as_they_went_in(items: list[str | tuple[str, dict[str, object]]]) -> None:
    text = ""
    for item in items:
        text += item if isinstance(item, str) else BEFORE_ARGUMENTS % item[0] + json.dumps(item[1]) + AFTER_ARGUMENTS
    answer = read(text)
    assert answer.calls == [(item[0], json.dumps(item[1])) for item in items if not isinstance(item, str)]
    said = "".join(item for item in items if isinstance(item, str))
    assert "".join(answer.said.split()) == "".join(said.split())


PIECES = st.sampled_from(
    [
        "<tool_call>",
        "</tool_call>",
        "\n",
        " ",
        "{",
        "}",
        '"',
        "\\",
        ":",
        ",",
        '"name"',
        '"f"',
        '"arguments"',
        "{}",
        CALL,
    ]
    + ['<tool_call>\n{"name": "f", "arguments": ', "<tool", "é"]
)


@given(st.lists(PIECES, max_size=25).map("".join), st.data())
def test_any_cut_gives_the_same(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=len(text))))
    edges = [0, *cuts, len(text)]
    deltas = [text[start:end] for start, end in itertools.pairwise(edges)]
    whole = read(text)
    assert read(*deltas) == whole
    if not whole.calls:
        assert whole.said == text
