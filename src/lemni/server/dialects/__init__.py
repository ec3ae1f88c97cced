"""The API dialects: one file each, one line here. A dialect parses its clients' bodies and writes its own answers.

A dialect's module has a `DIALECT` (`lemni.server.dialect`). Dialects may share a path: the keys of the body tell them
apart. The first in the table answers for paths that belong to nobody.
"""

from __future__ import annotations

from importlib import import_module

from lemni.server.dialect import Dialect

DIALECTS = {
    "openai": "lemni.server.dialects.openai",
    "infinity": "lemni.server.dialects.infinity",
    "vllm": "lemni.server.dialects.vllm",
    "nim": "lemni.server.dialects.nim",
    "cohere": "lemni.server.dialects.cohere",
    "rerank": "lemni.server.dialects.rerank",
    "jina": "lemni.server.dialects.jina",
    "voyage": "lemni.server.dialects.voyage",
    "mixedbread": "lemni.server.dialects.mixedbread",
    "ollama": "lemni.server.dialects.ollama",
    "tei": "lemni.server.dialects.tei",
    "huggingface": "lemni.server.dialects.huggingface",
    "embed_text": "lemni.server.dialects.embed_text",
    "embed_texts": "lemni.server.dialects.embed_texts",
}


def load_dialects() -> list[Dialect]:
    """All dialects, in the order of the table."""
    return [import_module(module).DIALECT for module in DIALECTS.values()]
