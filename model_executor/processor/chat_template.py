"""A checkpoint's Jinja chat template, rendered so that client text stays apart from control text. Pure.

Every piece of client text goes in as an unguessable mark, and the result is split at the marks: whatever a client types
can never become a control token, and the template's own logic still decides everything around it. Of tools and calls,
strings are marked one by one, so that a template can walk through them; what it turns into JSON is one piece.
"""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, pass_context
from jinja2.ext import loopcontrols
from jinja2.meta import find_undeclared_variables
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from model_executor.processor.tokenizer import TemplateText, UserText

Text = UserText | TemplateText

_MARKS = "marks of client text"
"""The name, which no template can write, of the `Sentinels` of a rendering."""
_PLAIN_KEY = re.compile(r"[\w$.-]+")
"""Names in an object that a template may look up; they cannot hold a control token."""


class TemplateFaultError(Exception):
    """The chat template refuses the conversation, or loses or repeats parts of it."""


class Sentinels:
    """Stand-ins for the client text of one rendering."""

    def __init__(self) -> None:
        self._secret = secrets.token_hex(8)
        # A private-use character and 64 random bits: no client text holds it.
        self._pattern = re.compile(f"\ue000{self._secret}:(\\d+);")
        self._pieces: list[Sequence[Text]] = []
        self._inside: dict[int, list[int]] = {}
        self._once: list[int] = []
        self._some: set[int] = set()

    def content(self, texts: Sequence[Text]) -> str:
        """The mark of something said, which must come out once and in its place."""
        self._once.append(len(self._pieces))
        return self._mark(texts)

    def name(self, name: str) -> str:
        """The mark of a name that must come out, wherever and however often."""
        self._some.add(len(self._pieces))
        return self._mark([UserText(name)])

    def value(self, value: Any) -> Any:
        """A JSON value with marks in place of its texts, which may come out."""
        if isinstance(value, str):
            return self._mark([UserText(value)])
        if isinstance(value, Mapping):
            return {
                key if _PLAIN_KEY.fullmatch(key) else self.value(key): self.value(entry) for key, entry in value.items()
            }
        return [self.value(entry) for entry in value] if isinstance(value, list) else value

    def json(self, value: Any, **options: Any) -> str:
        """The mark of `value` as JSON text, the texts it holds counting as come out."""
        inside: list[int] = []
        text = json.dumps(self._unmarked(value, inside), **options)
        self._inside[len(self._pieces)] = inside
        return self._mark([UserText(text)])

    def split(self, rendered: str) -> list[Text]:
        """What came out, client text apart.

        Raises:
            TemplateFaultError: something that was said is missing, or is not in its place.
        """
        texts: list[Text] = []
        seen: list[int] = []
        for number, piece in enumerate(self._pattern.split(rendered)):
            if number % 2:
                seen += self._inside.get(int(piece), [int(piece)])
                texts += self._pieces[int(piece)]
            elif self._secret in piece:
                raise TemplateFaultError("the model's chat template takes texts of this conversation apart")
            else:
                texts.append(TemplateText(piece))
        once = set(self._once)
        if [index for index in seen if index in once] != self._once or not self._some.issubset(seen):
            raise TemplateFaultError(
                "the model's chat template leaves out, repeats or reorders parts of this conversation"
            )
        return texts

    def _mark(self, texts: Sequence[Text]) -> str:
        self._pieces.append(texts)
        return f"\ue000{self._secret}:{len(self._pieces) - 1};"

    def _unmarked(self, value: Any, inside: list[int]) -> Any:
        """`value` with its own texts; the numbers of their marks are added to `inside`."""
        if isinstance(value, str):
            marks = [int(number) for number in self._pattern.findall(value)]
            inside += marks
            originals = iter("".join(text.text for text in self._pieces[number]) for number in marks)
            return self._pattern.sub(lambda _: next(originals), value)
        if isinstance(value, Mapping):
            return {self._unmarked(key, inside): self._unmarked(entry, inside) for key, entry in value.items()}
        return [self._unmarked(entry, inside) for entry in value] if isinstance(value, list | tuple) else value


def render_template(template: str, marks: Sentinels, **variables: Any) -> list[Text]:
    """The texts of a prompt.

    Args:
        template: Jinja source.
        marks: stand-ins that `variables` hold.
        variables: what the template may use.

    Raises:
        TemplateFaultError: see the class.
    """
    try:
        rendered = _compiled(template).render({**variables, _MARKS: marks})
    except TemplateFaultError:
        raise
    except Exception as error:  # a template is a program of somebody else's and may fail in any way
        raise TemplateFaultError(f"the model's chat template refuses this conversation: {error}") from error
    return marks.split(rendered)


@lru_cache(maxsize=8)
def knows_tools(template: str) -> bool:
    """Whether a template can tell a model of tools.

    Raises:
        TemplateFaultError: it cannot be read.
    """
    try:
        return "tools" in find_undeclared_variables(_environment().parse(template))
    except TemplateError as error:
        raise TemplateFaultError(f"the model's chat template cannot be read: {error}") from error


@lru_cache(maxsize=8)
def _compiled(template: str) -> Template:
    try:
        return _environment().from_string(template)
    except TemplateError as error:
        raise TemplateFaultError(f"the model's chat template cannot be read: {error}") from error


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals["raise_exception"] = _raise_exception
    environment.filters["tojson"] = _to_json
    return environment


@pass_context
def _to_json(
    context: Context,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """What transformers gives templates under the name `tojson`: plain JSON, not made safe for web pages."""
    marks: Sentinels = context[_MARKS]
    return marks.json(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)
