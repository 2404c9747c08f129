"""Renders a checkpoint's Jinja chat template and separates user text from template text in the result. Pure.

Every piece of user text enters the template as an unguessable sentinel, and the result is split at the sentinels: user
text can never become a special token, and the template's own logic still decides everything around it. In tools and
tool calls each string gets a sentinel of its own, so that a template can iterate over them; a value that the template
turns into JSON is one piece.
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

_SENTINELS = "sentinels of user text"
"""The variable that holds a rendering's `Sentinels`; no template can refer to this name."""
_PLAIN_KEY = re.compile(r"[\w$.-]+")
"""Keys of an object that a template may look up, and words it may compare; they cannot contain a special token."""


class TemplateFaultError(Exception):
    """The chat template rejects the conversation, or drops or repeats parts of it."""


class Sentinels:
    """Stand-ins for the user text of one rendering."""

    def __init__(self) -> None:
        self._secret = secrets.token_hex(8)
        # A private-use character and 64 random bits: no user text contains it.
        self._pattern = re.compile(f"\ue000{self._secret}:(\\d+);")
        self._pieces: list[Sequence[Text]] = []
        self._nested: dict[int, list[int]] = {}
        self._once: list[int] = []
        self._at_least_once: set[int] = set()

    def content(self, texts: Sequence[Text]) -> str:
        """The sentinel of a message's text, which the template must write once and in order."""
        self._once.append(len(self._pieces))
        return self._add(texts)

    def name(self, name: str) -> str:
        """The sentinel of a name, which the template must write at least once, anywhere."""
        self._at_least_once.add(len(self._pieces))
        return self._add([UserText(name)])

    def value(self, value: Any) -> Any:
        """A JSON value with sentinels instead of its strings, which the template may write or not."""
        if isinstance(value, str):
            return self._add([UserText(value)])
        if isinstance(value, Mapping):
            return {
                key if _PLAIN_KEY.fullmatch(key) else self.value(key): self.value(entry) for key, entry in value.items()
            }
        return [self.value(entry) for entry in value] if isinstance(value, list) else value

    def option(self, value: Any) -> Any:
        """A client's value of a variable of the template, in which plain words stay, for the template to compare."""
        return value if isinstance(value, str) and _PLAIN_KEY.fullmatch(value) else self.value(value)

    def json(self, value: Any, **options: Any) -> str:
        """The sentinel of `value` as JSON text; writing it counts as writing the strings in it."""
        nested: list[int] = []
        text = json.dumps(self._restore(value, nested), **options)
        self._nested[len(self._pieces)] = nested
        return self._add([UserText(text)])

    def split(self, rendered: str) -> list[Text]:
        """The rendered text, with user text as separate pieces.

        Raises:
            TemplateFaultError: a message's text or a name is missing, repeated, or out of order.
        """
        texts: list[Text] = []
        seen: list[int] = []
        for number, piece in enumerate(self._pattern.split(rendered)):
            if number % 2:
                seen += self._nested.get(int(piece), [int(piece)])
                texts += self._pieces[int(piece)]
            elif self._secret in piece:
                raise TemplateFaultError("the model's chat template splits texts of this conversation")
            else:
                texts.append(TemplateText(piece))
        once = set(self._once)
        if [index for index in seen if index in once] != self._once or not self._at_least_once.issubset(seen):
            raise TemplateFaultError("the model's chat template drops, repeats or reorders parts of this conversation")
        return texts

    def _add(self, texts: Sequence[Text]) -> str:
        self._pieces.append(texts)
        return f"\ue000{self._secret}:{len(self._pieces) - 1};"

    def _restore(self, value: Any, numbers: list[int]) -> Any:
        """`value` with its original strings; the numbers of their sentinels are appended to `numbers`."""
        if isinstance(value, str):
            sentinels = [int(number) for number in self._pattern.findall(value)]
            numbers += sentinels
            originals = iter("".join(text.text for text in self._pieces[number]) for number in sentinels)
            return self._pattern.sub(lambda _: next(originals), value)
        if isinstance(value, Mapping):
            return {self._restore(key, numbers): self._restore(entry, numbers) for key, entry in value.items()}
        return [self._restore(entry, numbers) for entry in value] if isinstance(value, list | tuple) else value


def render_template(template: str, sentinels: Sentinels, /, **variables: Any) -> list[Text]:
    """The texts of a prompt.

    Args:
        template: Jinja source.
        sentinels: those that `variables` contain.
        variables: the template's variables.

    Raises:
        TemplateFaultError: the template rejects the conversation, or drops or repeats parts of it.
    """
    try:
        rendered = _compile(template).render({**variables, _SENTINELS: sentinels})
    except TemplateFaultError:
        raise
    except Exception as error:  # the checkpoint's template is a foreign program and may fail in any way
        raise TemplateFaultError(f"the model's chat template rejects this conversation: {error}") from error
    return sentinels.split(rendered)


@lru_cache(maxsize=8)
def variables(template: str) -> frozenset[str]:
    """Names of the variables that a template reads and does not set, functions left out.

    Raises:
        TemplateFaultError: it cannot be read.
    """
    environment = _environment()
    try:
        return frozenset(find_undeclared_variables(environment.parse(template)) - environment.globals.keys())
    except TemplateError as error:
        raise TemplateFaultError(f"the model's chat template cannot be read: {error}") from error


def supports_tools(template: str) -> bool:
    """Whether a template writes tool descriptions into the prompt.

    Raises:
        TemplateFaultError: it cannot be read.
    """
    return "tools" in variables(template)


@lru_cache(maxsize=8)
def _compile(template: str) -> Template:
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
    """Transformers' filter `tojson`: plain JSON, without Jinja's escapes for HTML."""
    sentinels: Sentinels = context[_SENTINELS]
    return sentinels.json(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)
