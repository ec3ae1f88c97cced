"""Chat templates, rendered for a pair: one message for the instruction, one for the query, one for the document.

Templates come with models, so they run in Jinja's sandbox. They are rendered as transformers does it
(`utils/chat_template_utils.py`), and a pair becomes messages as in sentence-transformers (`base/modality.py`,
`pair_to_messages`). Knows nothing of tokens. Called by `lemni.tasks.causal_layouts`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lemni.errors import ModelLoadError

# What marks a template that reads the content of a message as a list of parts.
_STRUCTURED = ("content[0]", ".type", "'type'", '"type"', "item.type", "message.content[")
_FLAT_TYPES = frozenset({"apertus", "deepseek_v3", "gpt_oss", "seed_oss"})


class PairTemplate:
    """One chat template.

    Args:
        source: its text.
        variables: what it sees beside the messages: special tokens, and what the model's files set.
        structured: whether the content of a message is a list of parts rather than a text.

    Raises:
        ModelLoadError: it is no valid template, cannot be rendered for a pair, or leaves out a side of it.
    """

    def __init__(self, source: str, variables: Mapping[str, Any], *, structured: bool, model: str) -> None:
        self._variables = {"tools": None, "documents": None, "add_generation_prompt": False, **variables}
        self._structured = structured
        try:
            self._template = _environment().from_string(source)
            base, query, document = (
                self.render(*pair, "") for pair in (("alpha", "bravo"), ("charlie", "bravo"), ("alpha", "foxtrot"))
            )
        except Exception as error:  # a template can fail in any way; its source is the cause
            raise ModelLoadError(f"{model}: its chat template cannot be rendered for a pair: {error}") from error
        for role, other in (("query", query), ("document", document)):
            if other == base:
                raise ModelLoadError(
                    f"{model}: its chat template leaves out the {role}; it must render the messages of the roles "
                    '"query" and "document": put such a template into chat_template.jinja'
                )
        self.document_last = base.rfind("bravo") > base.rfind("alpha")

    def render(self, query: str, document: str, instruction: str) -> str:
        """The whole prompt. An empty instruction is none. Raises jinja2.TemplateError if the template does."""
        messages = [self._message("query", query), self._message("document", document)]
        if instruction:
            messages.insert(0, self._message("system", instruction))
        return self._template.render(messages=messages, **self._variables)

    def _message(self, role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": [{"type": "text", "text": text}] if self._structured else text}


def reads_parts(source: str, model_type: str) -> bool:
    """Whether a template reads contents as lists of parts, where nothing says so."""
    return model_type not in _FLAT_TYPES and any(mark in source for mark in _STRUCTURED)


class _Generation(Extension):
    """`{% generation %}` marks what a model is trained on; it renders as its body."""

    tags = {"generation"}  # noqa: RUF012 (Jinja's own declaration)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller: Callable[[], str]) -> str:
        return caller()


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)  # Jinja's own would escape HTML


def _raise(message: str) -> None:
    raise TemplateError(message)
