"""Texts and token ids of a request into sequences: which prompt goes before them, and how long texts are treated.

Every kind of model that embeds plain texts encodes them here; `tokenizer.py` does the tokenising.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence as Seq

from lemni.errors import InvalidRequest, LemniError
from lemni.tasks.base import Parts
from lemni.tasks.tokenizer import Named, Tokenizer
from lemni.types import InputType, Options, Output, Sequence, Truncate

# Names that models give to their prompts for the two sides of a search, the usual one first.
_SIDES: dict[InputType, tuple[str, ...]] = {
    "query": ("query", "search_query", "queries", "retrieval.query", "web_search_query"),
    "document": ("document", "passage", "search_document", "corpus", "documents", "passages", "retrieval.passage"),
}


class Texts:
    """Prompts, tokenizer and truncation of one model."""

    def __init__(self, parts: Parts, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self._name = parts.name
        self._prompts = parts.spec.prompts
        self._own = {name.lower(): name for name in self._prompts}
        self._include_prompt = parts.spec.include_prompt
        self.truncate: Truncate = parts.truncate or parts.spec.truncation_side
        self._prompt_name = parts.prompt_name or parts.spec.default_prompt_name
        if self._prompt_name is not None:
            self._named(self._prompt_name)

    def validate(self, options: Options) -> None:
        """Raises InvalidRequest for the name of no prompt, even if a prompt's text is given beside it."""
        if options.prompt_name is not None:
            self._named(options.prompt_name)

    def prompt(self, options: Options, side: InputType | None = None) -> str:
        """The text that goes before every item; `side` is what the items are, where the options do not say."""
        if options.prompt is not None:
            return options.prompt
        if options.prompt_name is not None:
            return self._named(options.prompt_name)
        side = options.input_type or side
        for name in _SIDES[side] if side else ():
            if name in self._own:
                return self._prompts[self._own[name]]
        return "" if self._prompt_name is None else self._named(self._prompt_name)

    def estimate(self, item: str | Seq[int], options: Options, side: InputType | None = None) -> int:
        """A guess at the tokens of an item; at least 1."""
        whole = (options.truncate or self.truncate) == "chunk"
        return self.tokenizer.estimate(item, self.prompt(options, side), whole=whole)

    def encode(
        self,
        items: Seq[str | Seq[int]],
        options: Options,
        outputs: tuple[Output, ...],
        named: Named,
        side: InputType | None = None,
    ) -> list[list[Sequence] | LemniError]:
        """The sequences of each item, several for a long text that is embedded in chunks, or its own error."""
        prompt = self.prompt(options, side)
        truncate = options.truncate or self.truncate
        start = self.tokenizer.prompt_tokens(prompt) if prompt and not self._include_prompt else 0
        found = self.tokenizer.encode(items, truncate, named, prompt, start)
        out: list[list[Sequence] | LemniError] = []
        for place, (item, one) in enumerate(zip(items, found, strict=True)):
            many: list[Sequence] | LemniError
            if options.max_tokens is not None and side != "query" and isinstance(one, Sequence):
                one = self.tokenizer.shortened(one, options.max_tokens, truncate, named(place))
                many = one if isinstance(one, LemniError) else [one]
            elif truncate == "chunk" and isinstance(one, Sequence) and one.truncated:
                if not isinstance(item, str):
                    many = InvalidRequest(f"{named(place)} is a list of token ids; only texts are cut into chunks")
                else:
                    many = self.tokenizer.windows(item, named(place), prompt, start)
            else:
                many = one if isinstance(one, LemniError) else [one]
            if not isinstance(many, LemniError) and outputs != many[0].outputs:
                many = [dataclasses.replace(part, outputs=outputs) for part in many]
            out.append(many)
        return out

    def _named(self, name: str) -> str:
        if name not in self._prompts:
            known = ", ".join(repr(known) for known in self._prompts) or "none"
            raise InvalidRequest(
                f"prompt_name {name!r} is no prompt of {self._name}; it has: {known}", param="prompt_name"
            )
        return self._prompts[name]
