"""What the offline benchmark computes: Cranfield and STSb where they lie beside the repository, or else Python's help.

Texts are cut to the model's length before any engine sees them: some engines cut elsewhere, or not at all.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.late_interaction_cranfield import BESIDE
from tests.shared import STSB, stsb
from tokenizers import Tokenizer

from benchmarks.texts import mixed
from lemni.quantize.data import read_collection

SPECIAL = 2
"""[CLS] and [SEP]; the second text of a pair has only a [SEP]."""


@dataclass(frozen=True)
class Work:
    """`lengths`: tokens of each sequence, special ones counted. For pairs the query is the first text."""

    name: str
    texts: list[str]
    lengths: list[int]

    @property
    def items(self) -> int:
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        return sum(self.lengths)


class Texts:
    """Documents and sentences in a fixed random order, cut by a model's tokenizer."""

    def __init__(self, tokenizer: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        if BESIDE.exists() and STSB.exists():
            found = read_collection(BESIDE)
            self.source = "Cranfield documents and queries, STSb sentences"
            self.documents, self.queries, sentences = found.documents, found.queries, stsb()[0]
        else:
            self.source = "Python's language reference"
            self.documents = mixed(1400, seed=1, mean_words=4.9, spread=0.5)
            self.queries, sentences = (
                mixed(225, seed=2, mean_words=2.8, spread=0.4),
                mixed(1379, seed=3, mean_words=2.3),
            )
        self.sentences = list(dict.fromkeys(sentences))
        for texts in (self.documents, self.queries, self.sentences):
            random.Random(0).shuffle(texts)

    def mixed(self, count: int, longest: int = 256) -> Work:
        """A third each of documents, queries and sentences."""
        third = count // 3
        texts = [*self.documents[:third], *self.queries[:third], *self.sentences[: count - 2 * third]]
        random.Random(1).shuffle(texts)
        return self._work(f"mixed lengths, {len(texts)} texts", texts, longest)

    def short(self, count: int) -> Work:
        return self._work(f"short only, {count} sentences", self.sentences[:count], 256)

    def long(self, count: int, length: int = 256) -> Work:
        """All of exactly `length` tokens: documents one after the other, cut."""
        words = " ".join(self.documents)
        ends = self._tokenizer.encode(words[: count * length * 8], add_special_tokens=False).offsets
        size = length - SPECIAL
        cuts = [words[ends[size * at][0] : ends[size * (at + 1) - 1][1]] for at in range(count)]
        return self._work(f"long only, {count} texts of {length} tokens", cuts, length)

    def pairs(self, count: int, longest: int = 256) -> Work:
        """A query and documents."""
        query, documents = self.queries[0], self.documents[:count]
        taken = self._length(query) + 1
        texts = [query, *(self._cut(text, longest - taken) for text in documents)]
        lengths = [taken + self._length(text) - SPECIAL for text in texts[1:]]
        return Work(f"rerank, 1 query x {count} documents", texts, lengths)

    def _work(self, name: str, texts: Sequence[str], longest: int) -> Work:
        cut = [self._cut(text, longest - SPECIAL) for text in texts]
        return Work(name, cut, [self._length(text) for text in cut])

    def _cut(self, text: str, tokens: int) -> str:
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return text if len(offsets) <= tokens else text[: offsets[tokens - 1][1]]

    def _length(self, text: str) -> int:
        return len(self._tokenizer.encode(text).ids)
