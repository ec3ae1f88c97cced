"""A tiny random BERT with a WordPiece tokenizer of letters, saved as sentence-transformers would save it, and models
loaded and asked without an engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from lemni.config import EngineSettings, HubSettings, ModelSettings
from lemni.errors import LemniError
from lemni.loading import load_model
from lemni.tasks.model import LoadedModel
from lemni.types import Item, Options, PackedBatch, Request, Result, Row, Task
from lemni.types import Sequence as Tokens

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = {
    token: index
    for index, token in enumerate(
        [
            "[PAD]",
            "[UNK]",
            "[CLS]",
            "[SEP]",
            *LETTERS,
            *(f"##{letter}" for letter in LETTERS),
            *LETTERS.upper(),
            ":",
            ".",
        ]
    )
}

TEXTS = ["a", "hello world", "the cat sat on the mat", "", "A Longer TEXT with Capitals. and more", "zzz " * 9]


def save_bert(folder: Path, **tokenizer_options: Any) -> Path:
    """Write config, weights (no zeros anywhere, so that a forgotten one shows) and tokenizer into `folder`."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    model = BertModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    options = {"model_max_length": 64, **tokenizer_options}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        **options,
    ).save_pretrained(folder)
    return folder


def sentence_model(folder: Path, modules: Sequence[Any] = (), max_length: int = 24, **options: Any) -> Any:
    """A SentenceTransformer of the tiny BERT and the modules given, saved in `folder`; returned as the reference."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Transformer

    bert = save_bert(folder / "bert", **options.pop("tokenizer", {}))
    first = Transformer(str(bert), max_seq_length=max_length, **options.pop("transformer", {}))
    model = SentenceTransformer(modules=[first, *modules], device="cpu", **options)
    model.save(str(folder / "model"))
    return model


def load(folder: Path, **settings: Any) -> LoadedModel:
    """The model that `sentence_model` saved in `folder`."""
    model = ModelSettings.model_validate({"model": str(folder / "model"), "device": "cpu", **settings})
    return load_model(model, HubSettings(offline=True), EngineSettings())


def request(items: Sequence[Item], tasks: tuple[Task, ...] = ("embed",), **options: Any) -> Request:
    return Request(items, Options(**options), tasks)


def tokenize(
    model: LoadedModel, items: Sequence[Item], tasks: tuple[Task, ...] = ("embed",), **options: Any
) -> list[list[Tokens] | LemniError]:
    """What each item becomes."""
    return model.tokenize(request(items, tasks, **options), 0, len(items))


def run(model: LoadedModel, items: Sequence[Item], tasks: tuple[Task, ...] = ("embed",), **options: Any) -> Result:
    """The result of a request whose sequences are one batch. Raises the first item's own error."""
    wanted = request(items, tasks, **options)
    model.validate(wanted)
    for item in items:
        model.estimate_tokens(item, wanted)
    outcomes = model.tokenize(wanted, 0, len(items))
    for outcome in outcomes:
        if isinstance(outcome, LemniError):
            raise outcome
    sequences = [one for many in outcomes if not isinstance(many, LemniError) for one in many]
    computed = [one for one in sequences if one.outputs]
    given = iter(model.new_runtime(0).run(PackedBatch.pack(computed)) if computed else [])
    rows = iter([Row(one, next(given) if one.outputs else {}) for one in sequences])
    return model.finish([[next(rows) for _ in many] for many in outcomes if isinstance(many, list)], wanted)
