"""What the graphs of each kind of model give, against transformers and sentence-transformers on the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.models import Dense, Normalize, Pooling

import lemni
from lemni.errors import ConfigError, ModelLoadError
from lemni.export import ExportOptions, export_model
from lemni.ops import onnx as onnx_ops
from lemni.tasks.classification_heads import pools_last
from lemni.types import Sequence
from tests.export.graphs import on_onnxruntime, on_openvino, rectangle, spec_of
from tests.families import test_static as static
from tests.tasks import test_bge_m3 as bge_m3
from tests.tasks import test_colbert as colbert
from tests.tasks.causal_rerankers import TEMPLATE, save_causal
from tests.tasks.causal_rerankers import tokenizer as causal_tokenizer
from tests.tasks.classifiers import FAMILIES, FOREIGN, PAIRS, save_classifier
from tests.tasks.classifiers import tokenizer as tokenizer_of
from tests.tasks.sparse_models import splade
from tests.tasks.tiny import TEXTS, sentence_model


def encoded(tokenizer: Any, texts: Any) -> list[Sequence]:
    found = []
    for text in texts:
        one = tokenizer(*text, truncation=True, max_length=60) if isinstance(text, tuple) else tokenizer(text)
        types = one.get("token_type_ids")
        types = None if types is None else np.array(types, np.int32)
        found.append(Sequence(np.array(one["input_ids"], np.int32), token_types=types))
    return found


def expected_logits(model: Any, items: list[Sequence], *, types: bool) -> Any:
    if pools_last(model.config.model_type):
        model.config.pad_token_id = None  # else it takes the last token that is not the end of a text
    rows = []
    for item in items:
        segments = np.zeros_like(item.ids) if item.token_types is None else item.token_types
        extra = {"token_type_ids": torch.tensor(segments[None].astype(np.int64))} if types else {}
        with torch.inference_mode():
            rows.append(model(torch.tensor(item.ids[None].astype(np.int64)), **extra).logits[0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in FOREIGN])
def test_logits_of_pairs(family: str, tmp_path: Path) -> None:
    model = save_classifier(tmp_path, family, 3)
    items = encoded(tokenizer_of(FAMILIES[family][2]), [pair for pair in PAIRS if "".join(pair)])
    done = export_model(spec_of(tmp_path), tmp_path / "graph.onnx", ExportOptions())
    pad_id = model.config.pad_token_id or 0
    logits = expected_logits(model, items, types="token_type_ids" in done.inputs)
    for side in ("right", "left"):
        feed = rectangle(items, side, pad_id)
        assert np.abs(on_onnxruntime(done.graph, feed)["logits"] - logits).max() <= 1e-4, side
    assert np.abs(on_openvino(done.graph, rectangle(items))["logits"] - logits).max() <= 1e-4


@pytest.mark.parametrize(
    "modes", ["cls", "mean", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens", ["cls", "mean"]]
)
def test_pooled_vectors_are_those_of_sentence_transformers(modes: Any, tmp_path: Path) -> None:
    wide = 32 * (len(modes) if isinstance(modes, list) else 1)
    dense = Dense(wide, 16, activation_function=torch.nn.Tanh())
    model = sentence_model(tmp_path, [Pooling(32, pooling_mode=modes), dense, Normalize()])
    done = export_model(spec_of(tmp_path / "model"), tmp_path / "pooled.onnx", ExportOptions(pooled=True))
    assert list(done.outputs) == ["sentence_embedding", "last_hidden_state"]
    texts = [text for text in TEXTS if len(text) < 20]
    for side in ("right", "left"):
        found = on_onnxruntime(done.graph, rectangle(encoded(model.tokenizer, texts), side))
        assert np.abs(found["sentence_embedding"] - model.encode(texts)).max() <= 1e-5, side


@pytest.mark.parametrize("form", ["onnx", "openvino"])
@pytest.mark.parametrize("pooled", [False, True])
def test_a_folder_is_a_model(form: Any, pooled: bool, tmp_path: Path) -> None:
    model = sentence_model(tmp_path, [Pooling(32), Dense(32, 16), Normalize()], prompts={"query": "ask: "})
    out = tmp_path / "out"
    done = export_model(spec_of(tmp_path / "model"), out, ExportOptions(form, pooled=pooled))
    assert not list(out.rglob("model.safetensors")) or (out / "2_Dense/model.safetensors").exists()
    assert not (out / "model.safetensors").exists()
    with lemni.load(str(out)) as loaded:
        assert loaded.card.runtime == "onnx"
        assert np.abs(loaded.embed(TEXTS) - model.encode(TEXTS)).max() <= 1e-5
        queries = loaded.embed(TEXTS, prompt_name="query")
        assert np.abs(queries - model.encode(TEXTS, prompt_name="query")).max() <= 1e-5
    assert {file.relative_to(out) for file in out.rglob("*") if file.is_file()} == {
        file.relative_to(out) for file in done.files
    }


def test_a_folder_inside_the_model(tmp_path: Path) -> None:
    sentence_model(tmp_path, [Pooling(32)])
    spec, output = spec_of(tmp_path / "model"), tmp_path / "model" / "out"
    first = export_model(spec, output, ExportOptions(check=False))
    second = export_model(spec, output, ExportOptions("openvino", check=False))
    assert set(second.files[2:]) == set(first.files[1:])
    assert not (output / "out").exists()


def test_lengths_in_the_files_of_a_folder(tmp_path: Path) -> None:
    model = sentence_model(tmp_path, [Pooling(32)])
    spec = spec_of(tmp_path / "model")
    export_model(spec, tmp_path / "out", ExportOptions(max_length=7))
    assert spec_of(tmp_path / "out").max_length == 7
    model.max_seq_length = 7
    with lemni.load(str(tmp_path / "out")) as loaded:
        assert np.abs(loaded.embed(TEXTS) - model.encode(TEXTS)).max() <= 1e-5
    with pytest.raises(ConfigError, match=r"max_seq_length is 65, but .* has positions for 64 tokens"):
        export_model(spec, tmp_path / "other", ExportOptions(max_length=65))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("strategy", ["max", "sum"])
def test_terms_of_splade(strategy: str, tmp_path: Path) -> None:
    model = splade(tmp_path, pooling_strategy=strategy)
    done = export_model(spec_of(tmp_path), tmp_path / "graph.onnx", ExportOptions())
    texts = ["who is it", "a cat", "the mat and the cat"]
    found = on_onnxruntime(done.graph, rectangle(encoded(model.tokenizer, texts)))["sparse_embedding"]
    theirs = model.encode(texts, convert_to_sparse_tensor=False).numpy()
    assert (theirs > 0).sum() > 10
    assert np.abs(found - theirs).max() <= 1e-5


def test_colbert_in_a_folder(tmp_path: Path) -> None:
    """Queries too, whose last tokens none attends to."""
    theirs = colbert.encoder(tmp_path, {})
    done = export_model(spec_of(tmp_path / "model"), tmp_path / "out" / "model", ExportOptions())
    assert list(done.outputs) == ["last_hidden_state", "multi_vector"]
    ours = colbert.load(tmp_path / "out", runtime="auto")
    for side in colbert.SIDES:
        colbert.same(colbert.rows(ours, colbert.TEXTS, side), colbert.expected(theirs, colbert.TEXTS, side))
    text = "a cat on a mat"
    feed = rectangle(encoded(theirs.tokenizer, [text]))
    tokens = on_onnxruntime(done.graph, feed)["multi_vector"][feed["attention_mask"].astype(bool)]
    colbert.same([tokens], colbert.expected(theirs, [text], None))


def test_bge_m3(tmp_path: Path) -> None:
    model = bge_m3.save_m3(tmp_path)
    done = export_model(spec_of(tmp_path), tmp_path / "graph.onnx", ExportOptions(pooled=True))
    text = "the cat and the mat"
    found = on_onnxruntime(done.graph, rectangle(encoded(model.tokenizer, [text])))
    size = len(model.tokenizer(text).input_ids)
    with torch.no_grad():
        assert np.abs(found["sentence_embedding"][0] - model.dense(text)).max() <= 1e-5
        assert np.abs(found["multi_vector"][0, 1:size] - model.vectors(text)).max() <= 1e-5
        assert abs(found["token_weights"][0, :size].max() - max(model.weights(text).values())) <= 1e-5


def test_a_causal_reranker_gives_the_difference_of_its_words(tmp_path: Path) -> None:
    model = save_causal(tmp_path, template=TEMPLATE)
    done = export_model(spec_of(tmp_path), tmp_path / "graph.onnx", ExportOptions())
    tokenizer = causal_tokenizer()
    items = encoded(tokenizer, ["is it the yes", "no"])
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))
    for side in ("right", "left"):
        found = on_onnxruntime(done.graph, rectangle(items, side))["logits"][:, 0]
        for value, item in zip(found, items, strict=True):
            with torch.inference_mode():
                last = model(torch.tensor(item.ids[None].astype(np.int64))).logits[0, -1]
            assert abs(value - float(last[yes] - last[no])) <= 1e-4


def test_static_embeddings_as_a_file(tmp_path: Path) -> None:
    model = static.model2vec.StaticModel(tokenizer=static._tokenizer(), **static._vectors("weights")[0])
    model.save_pretrained(tmp_path)
    spec = spec_of(tmp_path)
    done = export_model(spec, tmp_path / "graph.onnx", ExportOptions(pooled=True))
    feed = rectangle(static._sequences(spec, static.TEXTS))
    found = on_onnxruntime(done.graph, feed)["sentence_embedding"]
    assert np.abs(found - model.encode(static.TEXTS)).max() <= 1e-5
    with pytest.raises(ConfigError, match=r"is a table of vectors, .* name a file that ends in \.onnx"):
        export_model(spec, tmp_path / "out", ExportOptions())


def test_what_is_not_exported(tmp_path: Path) -> None:
    save_classifier(tmp_path / "deberta", "deberta")
    with pytest.raises(ModelLoadError, match=r"'deberta' is none of Lemni's own families, .*: albert, bert, "):
        export_model(spec_of(tmp_path / "deberta"), tmp_path / "x.onnx", ExportOptions())
    save_classifier(tmp_path / "bert", "bert")
    spec = spec_of(tmp_path / "bert")
    with pytest.raises(ConfigError, match=r"--pooled is for models with one dense vector .* always ends in logits"):
        export_model(spec, tmp_path / "x.onnx", ExportOptions(pooled=True))
    with pytest.raises(ConfigError, match="opset is 13; it must be from 14 to 20"):
        export_model(spec, tmp_path / "x.onnx", ExportOptions(opset=13))
    with pytest.raises(ConfigError, match=r"x\.onnx: the format openvino ends in \.xml"):
        export_model(spec, tmp_path / "x.onnx", ExportOptions("openvino"))
    export_model(spec, tmp_path / "x.onnx", ExportOptions())
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "model.onnx").write_bytes((tmp_path / "x.onnx").read_bytes())
    (tmp_path / "bare" / "config.json").write_bytes((tmp_path / "bert" / "config.json").read_bytes())
    with pytest.raises(ModelLoadError, match=r"has only model\.onnx; models are exported from safetensors"):
        export_model(spec_of(tmp_path / "bare"), tmp_path / "y.onnx", ExportOptions())


def test_pooling_without_the_prompt_stays_outside(tmp_path: Path) -> None:
    sentence_model(tmp_path, [Pooling(32, include_prompt=False)])
    with pytest.raises(ConfigError, match="pools without the tokens of its prompt"):
        export_model(spec_of(tmp_path / "model"), tmp_path / "x.onnx", ExportOptions(pooled=True))


def test_a_file_that_computes_something_else_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence_model(tmp_path, [Pooling(32)])
    monkeypatch.setitem(onnx_ops._ACTIVATIONS, "gelu", lambda x: x)
    with pytest.raises(ModelLoadError, match=r"last_hidden_state differs from Lemni's own by .* on ONNX Runtime"):
        export_model(spec_of(tmp_path / "model"), tmp_path / "x.onnx", ExportOptions())
    assert not (tmp_path / "x.onnx").exists()


def test_a_folder_of_links_is_not_written_through(tmp_path: Path) -> None:
    sentence_model(tmp_path, [Pooling(32)])
    blobs, out = tmp_path / "blobs", tmp_path / "out"
    (out / "onnx").mkdir(parents=True)
    blobs.mkdir()
    for name in ("config.json", "tokenizer_config.json", "onnx/model.onnx"):
        blob = blobs / name.replace("/", "-")
        blob.write_bytes(b"shared")
        (out / name).symlink_to(blob)
    spec = spec_of(tmp_path / "model")
    export_model(spec, out, ExportOptions(force=True, max_length=7))
    assert set(contents(blobs).values()) == {b"shared"}
    assert not any(file.is_symlink() for file in out.rglob("*"))
    found = spec_of(out)
    assert (found.config["hidden_size"], found.max_length) == (32, 7)


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_an_export_that_fails_changes_nothing(form: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lemni.export.model._LARGEST_FILE", 1000)  # the weights are a file of their own
    sentence_model(tmp_path, [Pooling(32)])
    spec, out, new = spec_of(tmp_path / "model"), tmp_path / "out", tmp_path / "new" / "folder"
    export_model(spec, out, ExportOptions(form))
    before = contents(out)
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][5, 5] = 1e6
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    (tmp_path / "model" / "README.md").write_text("changed")
    spec = spec_of(tmp_path / "model")
    for output in (out, new):
        with pytest.raises(ModelLoadError, match=r"word_embeddings\.weight has values over 65504"):
            export_model(spec, output, ExportOptions(form, dtype="float16", force=True))
    monkeypatch.setitem(onnx_ops._ACTIVATIONS, "gelu", lambda x: x)
    for output in (out, new):
        with pytest.raises(ModelLoadError, match="differs from Lemni's own by"):
            export_model(spec, output, ExportOptions(form, force=True))
    assert contents(out) == before
    assert not (tmp_path / "new").exists()
    monkeypatch.undo()
    export_model(spec, out, ExportOptions(form, force=True))
    assert (out / "README.md").read_text() == "changed"
    assert not (out / "onnx" / "model.onnx_data").exists()  # the graph has its weights in it now
    with lemni.load(str(out)) as loaded, lemni.load(str(tmp_path / "model"), runtime="openvino") as own:
        assert np.abs(loaded.embed(TEXTS) - own.embed(TEXTS)).max() <= 1e-4
