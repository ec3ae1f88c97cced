"""Static embeddings against model2vec and sentence-transformers on the same files, in every runtime."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers

from lemni import hub
from lemni.config import HubSettings
from lemni.errors import ModelLoadError
from lemni.families import family_class
from lemni.families.static import NO_TOKEN, Table, token_ids, unknown_id
from lemni.families.weights import Weights
from lemni.hub.tensors import TensorStore
from lemni.runtimes import open_backend
from lemni.runtimes.base import BackendOptions, Blueprint
from lemni.tasks.head import dense_head
from lemni.tasks.similarity import unit_length
from lemni.types import Sequence
from tests.families.decoders import run
from tests.shared import STSB, stsb

model2vec = pytest.importorskip("model2vec")

REAL = "pypi:tokenlearn-static-model==0.1.1#static_model/model"
WORDS = [f"w{n}" for n in range(30)]
TEXTS = ["w1", "w2 w3 w4", "w5 nothing w6 w6", "w7 " * 40, "[CLS] w8", "w29 w0 strange", "w9 w10 w11 w12 w13"]
EMPTY = ["", "   ", "only unknown words"]


def _tokenizer() -> Tokenizer:
    vocabulary = {word: index for index, word in enumerate(["[UNK]", "[CLS]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def _vectors(kind: str) -> tuple[dict[str, Any], float]:
    """Arguments of a model2vec model, and by how much averages may differ for its storage type."""
    random = np.random.default_rng(0)
    size = len(WORDS) + 2
    table = random.normal(size=(size, 24)).astype(np.float32)
    weights = random.uniform(0.1, 2, size).astype(np.float32)
    shared = {"token_mapping": random.integers(0, 10, size), "weights": weights}
    return {
        "float32": ({"vectors": table}, 1e-6),
        "float16": ({"vectors": table.astype(np.float16)}, 2e-3),
        "int8": ({"vectors": (table * 30).astype(np.int8)}, 2e-5),
        "weights": ({"vectors": table, "weights": weights}, 1e-6),
        "mapping": ({"vectors": table[:10], **shared}, 1e-6),
        "int8 mapping": ({"vectors": (table[:10] * 30).astype(np.int8), **shared}, 2e-5),
    }[kind]


KINDS = ("float32", "float16", "int8", "weights", "mapping", "int8 mapping")


def _spec(folder: Path) -> hub.ModelSpec:
    return hub.describe(hub.ModelFiles("tiny", folder, None, "folder"))


def _blueprint(spec: hub.ModelSpec) -> Blueprint:
    weights = Weights(TensorStore(spec.weights))
    family = family_class(spec.model_type)
    return Blueprint(spec, lambda ops: family(spec.config, weights, ops), {"dense": dense_head(spec)})


def _sequences(spec: hub.ModelSpec, texts: Seq[str]) -> list[Sequence]:
    tokenizer = Tokenizer.from_file(str(spec.transformer_path / "tokenizer.json"))
    tokenizer.no_padding()
    drops = Table(Weights(TensorStore(spec.weights))).leaves_out_unknown
    unknown = unknown_id(tokenizer) if drops else None
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    return [Sequence(token_ids(np.array(encoding.ids, dtype=np.int32), unknown)) for encoding in encodings]


def _vectors_of(spec: hub.ModelSpec, texts: Seq[str], runtime: str = "static") -> NDArray[np.float32]:
    backend = open_backend(runtime, _blueprint(spec), BackendOptions(threads=1))
    rows = run(backend.replica(0), _sequences(spec, texts), "dense")
    backend.close()
    return unit_length(rows) if spec.normalize else rows


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_model2vec(kind: str, normalize: bool, tmp_path: Path) -> None:
    arguments, tolerance = _vectors(kind)
    reference = model2vec.StaticModel(tokenizer=_tokenizer(), normalize=normalize, **arguments)
    reference.save_pretrained(tmp_path)
    spec = _spec(tmp_path)
    assert spec.normalize == normalize
    expected = reference.encode(TEXTS)
    assert np.abs(_vectors_of(spec, TEXTS) - expected).max() < tolerance


@pytest.mark.parametrize("runtime", ["openvino", "torch"])
@pytest.mark.parametrize("kind", ["int8 mapping", "float16"])
def test_every_runtime_agrees(kind: str, runtime: str, tmp_path: Path) -> None:
    model2vec.StaticModel(tokenizer=_tokenizer(), **_vectors(kind)[0]).save_pretrained(tmp_path)
    spec = _spec(tmp_path)
    texts = [*TEXTS, *EMPTY]
    assert np.abs(_vectors_of(spec, texts, runtime) - _vectors_of(spec, texts)).max() < 2e-5


@pytest.mark.parametrize("normalize", [False, True])
def test_a_text_without_tokens_is_zero(normalize: bool, tmp_path: Path) -> None:
    reference = model2vec.StaticModel(tokenizer=_tokenizer(), normalize=normalize, **_vectors("mapping")[0])
    reference.save_pretrained(tmp_path)
    vectors = _vectors_of(_spec(tmp_path), ["w1", *EMPTY, "w2"])
    assert np.array_equal(vectors[1:4], np.zeros((3, 24)))
    assert np.array_equal(reference.encode(EMPTY), vectors[1:4])
    assert np.abs(vectors[[0, 4]]).min() > 0


def test_the_layout_of_sentence_transformers_keeps_unknown_tokens(tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from sentence_transformers.models import StaticEmbedding

    table = _vectors("float32")[0]["vectors"]
    reference = sentence_transformers.SentenceTransformer(
        modules=[StaticEmbedding(_tokenizer(), embedding_weights=table)], device="cpu"
    )
    reference.save(str(tmp_path))
    spec = _spec(tmp_path)
    texts = [*TEXTS, "", "only unknown words"]
    vectors = _vectors_of(spec, texts)
    assert np.abs(vectors - reference.encode(texts)).max() < 1e-6
    assert np.abs(vectors[-1]).max() > 0  # in model2vec's layout this text is zero


def test_the_table_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    table = np.ones((4, 3), dtype=np.float32)

    def refused(message: str, **tensors: NDArray[Any]) -> None:
        save_file(tensors, tmp_path / "model.safetensors")
        with pytest.raises(ModelLoadError, match=message):
            Table(Weights(TensorStore([tmp_path / "model.safetensors"])))

    refused("beyond the 4", embeddings=table, mapping=np.array([0, 4]))
    refused("beyond the 4", embeddings=table, mapping=np.array([0, -1]))
    refused("vocabulary of 4", embeddings=table, weights=np.ones(3, dtype=np.float32))
    refused("shape", embeddings=np.ones(3, dtype=np.float32))
    refused("embedding.weight", something=table)


def test_no_other_library_is_loaded(tmp_path: Path) -> None:
    model2vec.StaticModel(tokenizer=_tokenizer(), **_vectors("int8 mapping")[0]).save_pretrained(tmp_path)
    program = f"""
import sys
from pathlib import Path
import numpy as np
from lemni.hub import ModelFiles, describe
from lemni.runtimes import open_backend
from lemni.runtimes.base import BackendOptions, Blueprint
from lemni.tasks.head import dense_head
from lemni.types import PackedBatch, Sequence
spec = describe(ModelFiles("tiny", Path({str(tmp_path)!r}), None, "folder"))
backend = open_backend("static", Blueprint(spec, None, {{"dense": dense_head(spec)}}), BackendOptions())
[outputs] = backend.replica(0).run(PackedBatch.pack([Sequence(np.array([1, 2], dtype=np.int32))]))
assert outputs["dense"].shape == (24,) and outputs["dense"].dtype == np.float32, outputs
loaded = {{"openvino", "torch", "transformers", "onnxruntime"}} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.fixture(scope="module")
def real() -> hub.ModelSpec:
    """A real int8 model2vec model with a shared vocabulary, from the package index."""
    return hub.describe(hub.resolve(REAL, HubSettings.model_validate({}), progress=False))


def _real_texts() -> list[str]:
    if STSB.exists():
        first, second, _ = stsb()
        return first + second
    own = Path(__file__).parents[2]
    texts = [line.strip() for name in ("LICENSE", "README.md") for line in (own / name).read_text("utf-8").splitlines()]
    return [text for text in texts if text]


def test_the_real_model_equals_model2vec(real: hub.ModelSpec) -> None:
    assert real.model_type == "model2vec"
    assert real.normalize
    reference = model2vec.StaticModel.from_pretrained(real.transformer_path)
    texts = [*_real_texts(), "你好,世界", "naïve café 🙂", "x" * 300]
    vectors = _vectors_of(real, texts)
    cosines = (vectors * reference.encode(texts)).sum(1)
    assert len(texts) > 100
    assert cosines.min() > 0.99999
    assert np.array_equal(_vectors_of(real, ["", "\u200b"])[0], np.zeros(vectors.shape[1]))


@pytest.mark.skipif(not STSB.exists(), reason="no STSb here")
def test_the_real_model_ranks_stsb_as_it_should(real: hub.ModelSpec) -> None:
    from scipy.stats import spearmanr

    first, second, scores = stsb()
    left, right = _vectors_of(real, first), _vectors_of(real, second)
    correlation = spearmanr((left * right).sum(1), scores).statistic
    assert correlation == pytest.approx(0.546, abs=0.001)


def test_no_token_stands_alone() -> None:
    ids = np.array([5, 3, 5], dtype=np.int32)
    assert token_ids(ids, None).tolist() == [5, 3, 5]
    assert token_ids(ids, 3).tolist() == [5, 5]
    assert token_ids(ids[:1], 5).tolist() == [NO_TOKEN]
