"""Tiny random classifiers of transformers, with a tokenizer of their kind, and how Lemni answers for them."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import transformers as hf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lemni.config import EngineSettings, HubSettings, ModelSettings
from lemni.errors import LemniError
from lemni.loading import load_model
from lemni.tasks.model import LoadedModel
from lemni.types import Item, Options, PackedBatch, Request, Result, Row, Task
from tests.families.decoders import save
from tests.tasks.tiny import LETTERS, VOCABULARY

RUNTIMES = ("openvino", "torch", "transformers")

PAIRS = [
    ("who is it", "a cat sat on the mat"),
    ("who is it", ""),
    ("", ""),
    ("", "some words"),
    ("who is it", "the longest document of them all " * 12),
    ("a very long query that goes on and on and on " * 3, "short"),
    ("longer than the model takes " * 9, "on both of its sides " * 9),
    ("who is it", "who is it"),
]

# Family -> the class of its config, what is special in it, and the kind of its tokenizer.
FAMILIES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "bert": (hf.BertConfig, {}, "bert"),
    "roberta": (hf.RobertaConfig, {"pad_token_id": 1, "max_position_embeddings": 66}, "roberta"),
    "xlm-roberta": (hf.XLMRobertaConfig, {"pad_token_id": 1, "max_position_embeddings": 66}, "xlmr"),
    "camembert": (hf.CamembertConfig, {"pad_token_id": 1, "max_position_embeddings": 66}, "xlmr"),
    "distilbert": (
        hf.DistilBertConfig,
        {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4},
        "bert",
    ),
    "electra": (hf.ElectraConfig, {"embedding_size": 16}, "bert"),
    "albert": (hf.AlbertConfig, {"embedding_size": 16}, "bert"),
    "mpnet": (hf.MPNetConfig, {"pad_token_id": 1, "max_position_embeddings": 66}, "roberta"),
    "deberta-v2": (
        hf.DebertaV2Config,
        {
            "relative_attention": True,
            "pos_att_type": ["c2p", "p2c"],
            "position_buckets": 8,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
            "type_vocab_size": 0,
            "pooler_hidden_size": 32,
        },
        "bert",
    ),
    "modernbert": (
        hf.ModernBertConfig,
        {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "local_attention": 8},
        "bert",
    ),
    "gte": (hf.GteConfig, {"pad_token_id": 0, "type_vocab_size": 2}, "bert"),
    "nomic_bert": (hf.NomicBertConfig, {"pad_token_id": 0}, "bert"),
    "eurobert": (hf.EuroBertConfig, {"pad_token_id": 0, "num_key_value_heads": 4}, "bert"),
    "qwen2": (hf.Qwen2Config, {"pad_token_id": 0, "num_key_value_heads": 2}, "decoder"),
    "qwen3": (hf.Qwen3Config, {"pad_token_id": 0, "num_key_value_heads": 2, "head_dim": 8}, "decoder"),
    "llama": (hf.LlamaConfig, {"pad_token_id": 0, "num_key_value_heads": 2}, "decoder"),
    "mistral": (hf.MistralConfig, {"pad_token_id": 0, "num_key_value_heads": 2}, "decoder"),
    "gemma3_text": (
        hf.Gemma3TextConfig,
        {"pad_token_id": 0, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 16},
        "decoder",
    ),
    # No family of Lemni's own: transformers computes it.
    "deberta": (hf.DebertaConfig, {"pooler_hidden_size": 32}, "bert"),
    "phi3": (hf.Phi3Config, {"pad_token_id": 0, "num_key_value_heads": 2}, "decoder"),
}
FOREIGN = ("deberta", "phi3")

_PIECES = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((c, -3.0) for c in LETTERS)]


def tokenizer(kind: str, **options: Any) -> Any:
    """A tokenizer of transformers that knows letters: WordPiece, byte-level BPE or a sentence-piece one."""
    options = {"model_max_length": 64, **options}
    if kind == "bert":
        return hf.BertTokenizer(vocab={**VOCABULARY, "[MASK]": len(VOCABULARY)}, **options)
    letters = [*LETTERS, "Ġ", *LETTERS.upper(), ".", ":"]
    if kind == "roberta":
        specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        vocabulary = {token: index for index, token in enumerate([*specials, *letters, "th", "the"])}
        return hf.RobertaTokenizer(vocab=vocabulary, merges=[("t", "h"), ("th", "e")], **options)
    if kind == "xlmr":
        return hf.XLMRobertaTokenizer(vocab=[*_PIECES, ("▁the", -1.0)], **options)
    # A decoder's: the end of the text, put after every text, is also its padding.
    vocabulary = {token: index for index, token in enumerate(["<end>", *letters])}
    library = Tokenizer(models.BPE(vocabulary, [], unk_token="<end>"))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.post_processor = processors.TemplateProcessing(
        single="$A <end>", pair="$A $B:1 <end>:1", special_tokens=[("<end>", 0)]
    )
    return hf.PreTrainedTokenizerFast(tokenizer_object=library, pad_token="<end>", eos_token="<end>", **options)


def save_classifier(folder: Path, family: str, labels: int = 1, **config: Any) -> Any:
    """Write a classifier's config, weights and tokenizer; the model, as transformers has it."""
    cls, special, kind = FAMILIES[family]
    chosen = tokenizer(kind)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
    }
    names = {index: f"label {index}" for index in range(labels)}
    settings = {"vocab_size": len(chosen), **sizes, **special, "id2label": names, **config}
    chosen.save_pretrained(folder)
    return save(hf.AutoModelForSequenceClassification.from_config(cls(**settings)), folder)


def load(folder: Path, **settings: Any) -> LoadedModel:
    model = ModelSettings.model_validate({"model": str(folder), "device": "cpu", **settings})
    return load_model(model, HubSettings(offline=True), EngineSettings(threads=1))


def ask(model: LoadedModel, items: Seq[Item], task: Task, *, alone: bool = False, **options: Any) -> Result:
    """The result of a request without the engine, all items in one batch or each by itself; errors are raised."""
    request = Request(items, Options(**options), (task,))
    model.validate(request)
    for item in items:
        model.estimate_tokens(item, request)
    sequences = []
    for outcome in model.tokenize(request, 0, len(items)):
        if isinstance(outcome, LemniError):
            raise outcome
        [sequence] = outcome
        sequences.append(sequence)
    runtime = model.new_runtime(0)
    batches = [[sequence] for sequence in sequences] if alone else [sequences]
    outputs = [found for batch in batches for found in runtime.run(PackedBatch.pack(batch))]
    return model.finish([[Row(one, found)] for one, found in zip(sequences, outputs, strict=True)], request)
