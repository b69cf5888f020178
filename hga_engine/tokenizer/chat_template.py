"""A model's chat template (Jinja, as Hugging Face defines it), split around its messages."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hga_engine.errors import ModelFileError


class ChatTemplate:
    """The text that a template puts before, between and after messages."""

    def __init__(self, source: str, tokens: Mapping[str, str], origin: str) -> None:
        """Compile a template, which runs in a sandbox.

        Args:
            source: Jinja source.
            tokens: named special tokens that the template may use, such as ``bos_token``.
            origin: the file that it is from, for errors.

        Raises:
            ModelFileError: the source is not a Jinja template.
        """
        self.source = source
        self.tokens = dict(tokens)
        self._origin = origin
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationBlocks, "jinja2.ext.loopcontrols"],
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ModelFileError(f"{origin}: the chat template is damaged ({error}).") from error

    def around(
        self, roles: Sequence[str], answer_follows: bool = False, *, thinking: bool = False
    ) -> list[str]:
        """Return the text around the contents of messages: one more piece than messages.

        Args:
            roles: roles of the messages: system, user or assistant.
            answer_follows: whether the last piece opens the assistant's message.
            thinking: whether a model that can think before it answers is asked to.

        Raises:
            ModelFileError: the template fails, or does not show every message once, in order.
        """
        # Private-use characters, because no template searches for them or trims them.
        marks = [f"\ue000{number}\ue001" for number in range(len(roles))]
        messages = [
            {"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)
        ]
        rest = self._render(messages, answer_follows, thinking)
        pieces = []
        for mark in marks:
            piece, found, rest = rest.partition(mark)
            if not found or mark in rest:
                raise ModelFileError(
                    f"{self._origin}: the chat template does not show each of the messages "
                    f"{', '.join(roles)} once."
                )
            pieces.append(piece)
        return [*pieces, rest]

    def _render(self, messages: list[dict[str, str]], answer_follows: bool, thinking: bool) -> str:
        try:
            return self._template.render(
                self.tokens,
                messages=messages,
                add_generation_prompt=answer_follows,
                enable_thinking=thinking,
            )
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise ModelFileError(f"{self._origin}: the chat template fails ({error}).") from error


class _GenerationBlocks(jinja2.ext.Extension):
    """``{% generation %}`` blocks, which mark what a model writes; rendered as usual."""

    tags = {"generation"}  # noqa: RUF012  declared as in the base class

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, **options: Any) -> str:
    """Replace Jinja's filter, which escapes for HTML."""
    return json.dumps(value, ensure_ascii=False, **options)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(layout: str) -> str:
    return datetime.now().astimezone().strftime(layout)
