"""Late interaction against sentence-transformers' MultiVectorEncoder on the same folder, and Stanford's ColBERT against
its formula written out in torch."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling, MultiVectorMask
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from lemni.errors import ConfigError, InvalidRequest, ModelLoadError
from lemni.tasks.model import LoadedModel
from lemni.types import InputType, Pair
from tests.tasks.tiny import LETTERS, load, run, tokenize

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", "[unused1]"]
TOKENS = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *"[].,!"]
VOCABULARY = {token: index for index, token in enumerate(TOKENS)}
TEXTS = ["a", "hello, world!", "The cat. Sat on the mat", "", "zzz, " * 9, "a longer text. and some more of it!"]
SIZES = {"vocab_size": len(TOKENS), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 48, "max_position_embeddings": 160, "pad_token_id": 0}  # fmt: skip
RUNTIMES = ["openvino", "torch", "transformers"]
SIDES: tuple[InputType | None, ...] = (None, "query", "document")
FAMILIES = ["distilbert", "roberta", "xlm-roberta", "electra", "albert", "mpnet", "modernbert"]
PROMPTS = {"query": "[unused0] ", "document": "[unused1] "}


def save_encoder(folder: Path, model_type: str = "bert", **config: Any) -> Path:
    """A tiny random encoder and a tokenizer of letters."""
    torch.manual_seed(0)
    sizes = dict(SIZES)
    if model_type == "distilbert":
        sizes = {"vocab_size": len(TOKENS), "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "pad_token_id": 0}
    model = AutoModel.from_config(AutoConfig.for_model(model_type, **{**sizes, **config})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece(VOCABULARY, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]", extra_special_tokens=["[unused0]", "[unused1]"],
    ).save_pretrained(folder)  # fmt: skip
    return folder


def projection(size: int = 16, **options: Any) -> Dense:
    torch.manual_seed(1)
    options = {"bias": False, "activation_function": torch.nn.Identity(), **options}
    return Dense(options.pop("in_features", 32), size, module_input_name="token_embeddings", **options)


def encoder(
    folder: Path, transformer: dict[str, Any], modules: Seq[Any] | None = None, model_type: str = "bert", **options: Any
) -> MultiVectorEncoder:
    """A MultiVectorEncoder, saved by itself in `folder`/model; returned as the reference."""
    first = Transformer(str(save_encoder(folder / "encoder", model_type)), **transformer)
    if modules is None:
        mask = MultiVectorMask(skiplist_words=list(string.punctuation))
        modules = [projection(), mask, Normalize(module_input_name="token_embeddings")]
    options = {"prompts": PROMPTS, **options}
    MultiVectorEncoder(modules=[first, *modules], device="cpu", **options).save_pretrained(str(folder / "model"))
    return reference(folder)


def reference(folder: Path) -> MultiVectorEncoder:
    return MultiVectorEncoder(str(folder / "model"), device="cpu", local_files_only=True)


def expected(model: MultiVectorEncoder, texts: Seq[str], side: InputType | None) -> list[NDArray[np.float32]]:
    encode = {None: model.encode, "query": model.encode_query, "document": model.encode_document}[side]
    return [encode(text, convert_to_numpy=True) for text in texts]


def rows(model: LoadedModel, texts: Seq[Any], side: InputType | None = None, **options: Any) -> Any:
    return run(model, texts, ("multi_vector",), input_type=side, **options).multi_vectors


def same(ours: Any, theirs: Any, atol: float = 1e-5) -> None:
    assert [a.shape for a in ours] == [b.shape for b in theirs]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


def check(folder: Path, theirs: MultiVectorEncoder, runtimes: Seq[str] = RUNTIMES) -> None:
    """On each runtime all sides, alone, in a batch and in another order; and MaxSim."""
    answers = {side: expected(theirs, TEXTS, side) for side in SIDES}
    queries, documents = answers["query"][:2], answers["document"][1:4]
    scores = theirs.similarity(queries, documents).numpy().reshape(-1)
    pairs = [Pair(query, document) for query in TEXTS[:2] for document in TEXTS[1:4]]
    for runtime in runtimes:
        ours = load(folder, runtime=runtime)
        for side in SIDES:
            same(rows(ours, TEXTS, side), answers[side])
            same(rows(ours, TEXTS[::-1], side), answers[side][::-1])
            same(rows(ours, TEXTS[1:2], side), answers[side][1:2])
        np.testing.assert_allclose(run(ours, pairs, ("score",)).scores, scores, atol=1e-4)


EXPANSIONS: list[dict[str, Any]] = [
    {"query_expansion": {"strategy": "fixed", "attend": False, "length": 16}, "document_length": 20},
    {"query_expansion": {"strategy": "fixed", "attend": True, "length": 16}, "document_length": 20},
    {"query_expansion": {"strategy": "min", "attend": False, "length": 12}, "query_length": 18},
    {"query_expansion": {"strategy": "min", "attend": True, "length": 12, "token": "[UNK]"}},
    {"query_length": 10, "document_length": 12},
]


@pytest.mark.parametrize("transformer", EXPANSIONS, ids=["fixed", "fixed-attended", "min", "min-attended", "none"])
def test_what_sentence_transformers_saves(tmp_path: Path, transformer: dict[str, Any]) -> None:
    theirs = encoder(tmp_path, transformer)
    ours = load(tmp_path)
    assert ours.card.tasks == ("multi_vector", "score")
    assert (ours.card.dimensions, ours.card.similarity) == (16, "maxsim")
    assert ours.card.prompts == PROMPTS
    check(tmp_path, theirs)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_families(tmp_path: Path, model_type: str) -> None:
    theirs = encoder(tmp_path, EXPANSIONS[0], model_type=model_type)
    check(tmp_path, theirs, RUNTIMES[:2])


def test_deep_projections_masks_of_both_sides_and_mean(tmp_path: Path) -> None:
    modules = [
        projection(48, bias=True, activation_function=torch.nn.GELU(), use_residual=True),
        projection(48, in_features=48, use_residual=True),
        projection(8, in_features=48),
        MultiVectorMask(skiplist_words=[".", "z", "nowhere", "[UNK]"], skiplist_tasks=["query", "document"]),
        Normalize(module_input_name="token_embeddings"),
        HierarchicalTokenPooling(pool_factor=1.0),
    ]
    theirs = encoder(tmp_path, EXPANSIONS[0], modules, similarity_fn_name="meanmaxsim", default_prompt_name="document")
    assert load(tmp_path).card.similarity == "meanmaxsim"
    check(tmp_path, theirs)


def test_rows_without_projection_or_length_and_kept_tokens(tmp_path: Path) -> None:
    keep = [VOCABULARY["a"], VOCABULARY["##l"], VOCABULARY["[CLS]"]]
    theirs = encoder(tmp_path, {}, [MultiVectorMask(keep_only_token_ids=keep)])
    ours = load(tmp_path)
    check(tmp_path, theirs)
    assert np.abs(np.linalg.norm(rows(ours, ["hello"])[0], axis=1) - 1).max() > 0.1
    unit = rows(ours, ["hello"], normalize=True)[0]
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)


def pylate(folder: Path, *, model_type: str | None, **config: Any) -> MultiVectorEncoder:
    """A folder as PyLate writes it: modules.json of two modules, and all else in config_sentence_transformers.json."""
    model, listing = folder / "model", []
    save_encoder(model)
    (model / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 17, "do_lower_case": False}))
    dense = projection()
    dense.save(str(model))
    (model / "model.safetensors").rename(folder / "dense.safetensors")
    save_encoder(model)
    (model / "1_Dense").mkdir()
    (folder / "dense.safetensors").rename(model / "1_Dense" / "model.safetensors")
    own = {"in_features": 32, "out_features": 16, "bias": False,
           "activation_function": "torch.nn.modules.linear.Identity"}  # fmt: skip
    (model / "1_Dense" / "config.json").write_text(json.dumps(own))
    for index, (path, kind) in enumerate(
        [("", "sentence_transformers.models.Transformer"), ("1_Dense", "pylate.models.Dense.Dense")]
    ):
        listing.append({"idx": index, "name": str(index), "path": path, "type": kind})
    (model / "modules.json").write_text(json.dumps(listing))
    sentence = {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "MaxSim", **config}
    if model_type is not None:
        sentence["model_type"] = model_type
    (model / "config_sentence_transformers.json").write_text(json.dumps(sentence))
    return reference(folder)


@pytest.mark.parametrize("model_type", [None, "ColBERT"])
@pytest.mark.parametrize(
    "config",
    [
        {"query_prefix": "[unused0]", "document_prefix": "[unused1]", "query_length": 14, "document_length": 18,
         "attend_to_expansion_tokens": False, "skiplist_words": ["!", "."]},
        {"query_prefix": "[Q] ", "document_prefix": "[D] ", "query_length": 14, "attend_to_expansion_tokens": True},
        {"query_prefix": "[unused0] ", "document_prefix": "", "query_length": 9, "do_query_expansion": False,
         "prompts": {"query": "find "}},
    ],
    ids=["unattended", "attended", "unexpanded"],
)  # fmt: skip
def test_what_pylate_saves(tmp_path: Path, config: dict[str, Any], model_type: str | None) -> None:
    theirs = pylate(tmp_path, model_type=model_type, **config)
    check(tmp_path, theirs, RUNTIMES[:2])


def stanford(folder: Path, **metadata: Any) -> Path:
    model = save_encoder(folder / "model")
    torch.manual_seed(1)
    weights = {f"bert.{name}": tensor for name, tensor in load_file(model / "model.safetensors").items()}
    save_file({**weights, "linear.weight": torch.randn(16, 32)}, model / "model.safetensors", {"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "architectures": ["HF_ColBERT"]}))
    settings = {"query_maxlen": 16, "doc_maxlen": 20, "query_token_id": "[unused0]", "doc_token_id": "[unused1]",
                "attend_to_mask_tokens": False, "mask_punctuation": True, "dim": 16, **metadata}  # fmt: skip
    (model / "artifact.metadata").write_text(json.dumps(settings))
    return model


def by_the_paper(
    model: Path, text: str, side: InputType | None, *, attend: bool, punctuation: bool
) -> NDArray[np.float32]:
    """ColBERT's `query` and `doc` (stanford-futuredata/ColBERT, modeling/checkpoint.py, modeling/colbert.py,
    tokenization/*_tokenization.py): the marker is put in place of a token after [CLS]."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model)
    weights = load_file(model / "model.safetensors")
    bert = AutoModel.from_pretrained(model).eval()
    length = 16 if side == "query" else 20
    ids = tokenizer(f". {text}", truncation=True, max_length=length)["input_ids"]
    ids[1] = VOCABULARY["[unused0]" if side == "query" else "[unused1]"]
    real = len(ids)
    if side == "query":
        ids += [VOCABULARY["[MASK]"]] * (length - real)
    mask = torch.ones(1, len(ids), dtype=torch.long)
    if not attend:
        mask[:, real:] = 0
    with torch.inference_mode():
        hidden = bert(input_ids=torch.tensor([ids]), attention_mask=mask).last_hidden_state[0]
        vectors = torch.nn.functional.normalize(hidden @ weights["linear.weight"].T, dim=-1)
    skipped = {VOCABULARY[token] for token in string.punctuation if token in VOCABULARY} if punctuation else set()
    kept = [n for n, token in enumerate(ids) if side == "query" or token not in skipped]
    return vectors[kept].numpy()


@pytest.mark.parametrize("attend", [False, True], ids=["unattended", "attended"])
def test_what_stanford_saves(tmp_path: Path, attend: bool) -> None:
    model = stanford(tmp_path, attend_to_mask_tokens=attend, mask_punctuation=attend)
    ours = load(tmp_path)
    for side in SIDES[1:]:
        answers = [by_the_paper(model, text, side, attend=attend, punctuation=attend) for text in TEXTS]
        same(rows(ours, TEXTS, side), answers)
    check(tmp_path, reference(tmp_path))


def test_stanford_without_metadata(tmp_path: Path) -> None:
    (stanford(tmp_path) / "artifact.metadata").unlink()
    ours = load(tmp_path)
    check(tmp_path, reference(tmp_path))
    assert rows(ours, ["a"], "query")[0].shape == (32, 16)


def test_options(tmp_path: Path) -> None:
    encoder(tmp_path, EXPANSIONS[0])
    ours = load(tmp_path)
    [whole] = rows(ours, ["hello, world"], "document")
    [cut] = rows(ours, ["hello, world"], "document", dimensions=5)
    np.testing.assert_allclose(cut, whole[:, :5] / np.linalg.norm(whole[:, :5], axis=1, keepdims=True), atol=1e-6)
    [raw] = rows(ours, ["hello, world"], "document", dimensions=5, normalize=False)
    assert np.linalg.norm(raw, axis=1).max() > 1.01
    ids = [2, VOCABULARY["[unused1]"], VOCABULARY["a"], VOCABULARY["."], 3]
    same(rows(ours, [ids], "document"), rows(ours, ["a."], "document"))
    assert len(rows(ours, [ids], "document")[0]) == 4
    assert len(rows(ours, ["a b c d e f"], "document", max_tokens=5)[0]) == 5
    pair = [Pair("hello, world", "a cat.")]
    vectors = rows(ours, ["hello, world"], "query")[0], rows(ours, ["a cat."], "document")[0]
    score = (vectors[0] @ vectors[1].T).max(1).sum()
    for options in ({}, {"input_type": "document"}):  # each side of a pair is what it is
        np.testing.assert_allclose(run(ours, pair, ("score",), **options).scores, [score], atol=1e-5)
    alike = [Pair("hello, world", "a cat.", symmetric=True)]
    one, other = rows(ours, ["hello, world", "a cat."])
    np.testing.assert_allclose(run(ours, alike, ("score",)).scores, [(one @ other.T).max(1).sum()], atol=1e-5)
    [[query]] = tokenize(ours, ["a b c d e f g h i j k l m n o p"], ("multi_vector",), input_type="query")
    assert (len(query.ids), query.truncated, query.unattended) == (16, True, 0)
    for wrong, words in (({"dimensions": 17}, "1 to 16"), ({"truncate": "chunk"}, "not averaged")):
        with pytest.raises(InvalidRequest, match=words):
            rows(ours, ["a"], **wrong)
    with pytest.raises(InvalidRequest, match="not pairs"):
        rows(ours, pair)


def test_a_length_from_the_settings_is_the_document_s(tmp_path: Path) -> None:
    encoder(tmp_path, EXPANSIONS[0])
    text = ["a " * 50]
    assert len(rows(load(tmp_path), text, "document")[0]) == 20
    assert len(rows(load(tmp_path, max_length=30), text, "document")[0]) == 30
    assert len(rows(load(tmp_path, max_length=12), text, "document")[0]) == 12
    with pytest.raises(ConfigError, match="not averaged"):
        load(tmp_path, truncate="chunk")


def test_numbers_that_only_transformers_has_are_refused_elsewhere(tmp_path: Path) -> None:
    far = {"query_expansion": {"strategy": "fixed", "attend": False, "length": 70}}
    theirs = encoder(tmp_path, far, model_type="modernbert")
    with pytest.raises(ModelLoadError, match=r"70 tokens that none attends to.*--runtime transformers"):
        load(tmp_path)
    check(tmp_path, theirs, ["transformers"])


def test_deberta_expands_by_attended_tokens_only(tmp_path: Path) -> None:
    encoder(tmp_path / "unattended", EXPANSIONS[0], model_type="deberta-v2")
    for runtime in ("openvino", "transformers"):
        with pytest.raises(ModelLoadError, match="deberta-v2 makes depend on the batch"):
            load(tmp_path / "unattended", runtime=runtime)
    check(tmp_path / "attended", encoder(tmp_path / "attended", EXPANSIONS[1], model_type="deberta-v2"))


def test_broken_folders_say_what_is_wrong(tmp_path: Path) -> None:
    model = stanford(tmp_path)
    (model / "artifact.metadata").write_text('{"query_maxlen": 0}')
    with pytest.raises(ModelLoadError, match="query_maxlen is 0"):
        load(tmp_path)
    (model / "artifact.metadata").write_text('{"query_maxlen": 900}')
    with pytest.raises(ModelLoadError, match="900 tokens, but has positions for 160"):
        load(tmp_path)
    weights = load_file(model / "model.safetensors")
    del weights["linear.weight"]
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"no linear\.weight"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        ([Normalize(module_input_name="token_embeddings"), projection(), MultiVectorMask()], "Dense"),
        ([projection(), MultiVectorMask(), HierarchicalTokenPooling(pool_factor=2)], "HierarchicalTokenPooling"),
        ([projection()], "no MultiVectorMask"),
    ],
    ids=["order", "pooling", "mask"],
)
def test_modules_that_are_refused(tmp_path: Path, modules: list[Any], words: str) -> None:
    encoder(tmp_path, EXPANSIONS[0], modules)
    with pytest.raises(ModelLoadError, match=words):
        load(tmp_path)
