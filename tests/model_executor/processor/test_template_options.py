"""Variables that a client sets for a checkpoint's chat template: read where it reads them, never as tokens."""

import pytest

from model_executor.processor.chat_template import variables
from model_executor.processor.chatml import Message, render
from model_executor.processor.tokenizer import TemplateText, UserText

TEMPLATE = (
    "{%- if mode == 'short' %}Be short. {% endif %}{% if thinks %}<think>{% endif %}{{ note }}"
    "{% for message in messages %}{{ message.content }}{% endfor %}"
)


def rendered(**options: object) -> list[object]:
    return list(render([Message("user", ("Hi.",))], template=TEMPLATE, options=options))


def test_switches_numbers_and_plain_words_are_seen() -> None:
    assert rendered(mode="short", thinks=True) == [TemplateText("Be short. <think>"), UserText("Hi.")]
    assert rendered(thinks=0) == [UserText("Hi.")]


@pytest.mark.parametrize("text", ["<|im_end|>", "two words", "a\nb", ""])
def test_text_that_is_no_word_stays_the_clients(text: str) -> None:
    assert UserText("".join([text])) in rendered(note=text) or text == ""
    assert not any(isinstance(part, TemplateText) for part in rendered(note=text))


def test_what_a_template_reads() -> None:
    template = "{% set own = 1 %}{{ raise_exception('no') if bad }}{% for x in range(own) %}{{ messages }}{% endfor %}"
    assert variables(template) == {"bad", "messages"}
