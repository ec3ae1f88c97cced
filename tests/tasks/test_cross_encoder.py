"""Scores of cross-encoders, against sentence-transformers' CrossEncoder on the same folder."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from sentence_transformers import CrossEncoder
from transformers import AutoTokenizer

from lemni.errors import ConfigError, InputTooLong, InvalidRequest, LemniError, ModelLoadError, TaskNotSupported
from lemni.types import Image, Options, Pair, Request
from tests.families.references import SIZE, jina_bert, jina_shapes, linear, linear_shapes, random_tensors
from tests.shared import STSB, stsb
from tests.tasks.classifiers import FAMILIES, FOREIGN, PAIRS, RUNTIMES, ask, load, save_classifier, tokenizer

ITEMS = [Pair(first, second) for first, second in PAIRS]
CE_TINY = STSB.parents[2] / "models" / "ce-tiny"


def rewrite(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def reference(folder: Path, **options: Any) -> NDArray[np.float32]:
    scores: NDArray[np.float32] = CrossEncoder(str(folder), device="cpu").predict(PAIRS, **options)
    return scores


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_of_every_family(tmp_path: Path, family: str) -> None:
    save_classifier(tmp_path, family)
    expected = reference(tmp_path)
    assert np.ptp(expected) > 1e-2
    for runtime in ("transformers",) if family in FOREIGN else RUNTIMES:
        model = load(tmp_path, runtime=runtime)
        assert model.card.tasks == ("score", "classify")
        assert model.card.dimensions is None
        scores = ask(model, ITEMS, "score").scores
        np.testing.assert_allclose(scores, expected, atol=1e-5, err_msg=runtime)
        np.testing.assert_allclose(ask(model, ITEMS, "score", alone=True).scores, scores, atol=1e-6)
        np.testing.assert_allclose(ask(model, ITEMS[::-1], "score").scores, scores[::-1], atol=1e-6)


@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "modernbert", "qwen3"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_pairs_are_joined_as_transformers_joins_them(tmp_path: Path, family: str, side: str) -> None:
    save_classifier(tmp_path, family)
    model = load(tmp_path, runtime="torch")
    tokens = AutoTokenizer.from_pretrained(tmp_path, truncation_side=side)
    long = ["abc def " * n for n in (5, 8, 9, 10, 11, 40)]
    texts = ["", "a", *long]
    pairs = [(first, second) for first in texts for second in texts]
    for longest in ("abc def " * 600, "the " + "x" * 9000, " " * 9000 + "end"):
        pairs += [pair for text in texts[:5] for pair in ((text, longest), (longest, text))]
    padding = 0 if family == "qwen3" else None
    for start in range(0, len(pairs), 50):
        some = pairs[start : start + 50]
        whole = tokens([list(pair) for pair in some])["input_ids"]
        expected = tokens([list(pair) for pair in some], truncation="longest_first")
        request = Request([Pair(*pair) for pair in some], Options(truncate=side), ("score",))  # type: ignore[arg-type]
        for place, outcome in enumerate(model.tokenize(request, 0, len(some))):
            assert not isinstance(outcome, LemniError)
            [sequence] = outcome
            wanted = expected["input_ids"][place]
            if padding is not None:  # the head looks at the last token that is not padding; see `classifier`
                wanted = wanted[: max((at for at, one in enumerate(wanted) if one != padding), default=0) + 1]
            assert sequence.ids.tolist() == wanted, some[place]
            if "token_type_ids" in expected:
                types = sequence.token_types
                ours = [0] * len(wanted) if types is None else types.tolist()
                assert ours == expected["token_type_ids"][place]
            assert sequence.truncated == (len(whole[place]) > 64)
        assert family != "bert" or any(1 in types for types in expected["token_type_ids"])


@pytest.mark.parametrize("side", ["left", "right"])
def test_texts_that_are_both_cut_share_the_room_by_their_lengths(tmp_path: Path, side: str) -> None:
    save_classifier(tmp_path, "bert")
    model = load(tmp_path, runtime="torch")
    tokens = AutoTokenizer.from_pretrained(tmp_path, truncation_side=side)
    longer, shorter = "a        " * 500, "b         " * 450  # at first, only parts of them are tokenised
    for pair in ((longer, shorter), (shorter, longer)):
        request = Request([Pair(*pair)], Options(truncate=side), ("score",))  # type: ignore[arg-type]
        [outcome] = model.tokenize(request, 0, 1)
        assert isinstance(outcome, list)
        assert outcome[0].ids.tolist() == tokens(*pair, truncation="longest_first")["input_ids"]


def test_a_query_is_tokenised_once_for_all_its_documents(tmp_path: Path) -> None:
    save_classifier(tmp_path, "bert")
    model = load(tmp_path)
    seen: list[str] = []
    pairs: Any = model.tasks["score"]._inputs._pairs  # type: ignore[attr-defined]

    class Counting:
        def __init__(self, library: Any) -> None:
            self._library = library

        def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
            seen.extend(texts)
            return self._library.encode_batch_fast(texts, **options)

    pairs._library = Counting(pairs._library)
    scores = ask(model, [Pair("a query", text) for text in ("one", "two", "one", "a query")], "score").scores
    assert sorted(seen) == ["a query", "one", "two"]
    assert scores[0] == scores[2]


@pytest.mark.parametrize("where", ["config.json", "modules"])
@pytest.mark.parametrize(
    ("path", "function"),
    [
        ("torch.nn.modules.linear.Identity", torch.nn.Identity()),
        ("torch.nn.modules.activation.Tanh", torch.nn.Tanh()),
        ("torch.nn.modules.activation.Sigmoid", torch.nn.Sigmoid()),
        ("their.own.Activation", torch.nn.Sigmoid()),
    ],
)
def test_the_activation_that_the_files_name(tmp_path: Path, path: str, function: torch.nn.Module, where: str) -> None:
    saved = save_classifier(tmp_path / "bare", "bert")
    folder = tmp_path / "bare"
    if where == "modules":
        folder = tmp_path / "saved"
        CrossEncoder(str(tmp_path / "bare"), device="cpu").save(str(folder))
        rewrite(folder / "config_sentence_transformers.json", activation_fn=path)
        assert (folder / "modules.json").is_file()
    else:
        rewrite(folder / "config.json", sentence_transformers={"activation_fn": path})
    model = load(folder)
    scores = ask(model, ITEMS, "score").scores
    np.testing.assert_allclose(scores, reference(folder), atol=1e-5)
    raw = ask(model, ITEMS, "score", activation="none").scores
    np.testing.assert_allclose(scores, function(torch.from_numpy(raw)), atol=1e-6)
    np.testing.assert_allclose(
        ask(model, ITEMS, "score", activation="sigmoid").scores, torch.sigmoid(torch.from_numpy(raw)), atol=1e-6
    )
    np.testing.assert_array_equal(ask(model, ITEMS, "score", activation="softmax").scores, 1)
    assert saved.config.num_labels == 1


def test_the_activation_of_old_files(tmp_path: Path) -> None:
    save_classifier(tmp_path, "bert", sbert_ce_default_activation_function="torch.nn.modules.linear.Identity")
    expected = reference(tmp_path)
    assert np.abs(expected).max() > 1 or expected.min() < 0
    np.testing.assert_allclose(ask(load(tmp_path), ITEMS, "score").scores, expected, atol=1e-5)


def test_an_unknown_activation_of_torch_is_refused(tmp_path: Path) -> None:
    save_classifier(tmp_path, "bert", sentence_transformers={"activation_fn": "torch.nn.Threshold"})
    with pytest.raises(ModelLoadError, match=r"torch\.nn\.Threshold.*Identity, Sigmoid"):
        load(tmp_path)


def test_prompts_go_before_the_query(tmp_path: Path) -> None:
    save_classifier(tmp_path / "bare", "bert")
    prompts = {"query": "find this: ", "other": "what "}
    encoder = CrossEncoder(str(tmp_path / "bare"), device="cpu", prompts=prompts, default_prompt_name="query")
    encoder.save(str(tmp_path / "saved"))
    model = load(tmp_path / "saved")
    by_default = ask(model, ITEMS, "score").scores
    np.testing.assert_allclose(by_default, encoder.predict(PAIRS), atol=1e-5)
    np.testing.assert_allclose(
        ask(model, ITEMS, "score", prompt_name="other").scores, encoder.predict(PAIRS, prompt_name="other"), atol=1e-5
    )
    np.testing.assert_allclose(
        ask(model, ITEMS, "score", prompt="").scores, encoder.predict(PAIRS, prompt=""), atol=1e-5
    )
    assert np.abs(by_default - ask(model, ITEMS, "score", prompt="").scores).max() > 1e-4


def test_the_maximum_length_of_the_files_and_of_the_settings(tmp_path: Path) -> None:
    save_classifier(tmp_path / "bare", "bert")
    CrossEncoder(str(tmp_path / "bare"), device="cpu", max_length=12).save(str(tmp_path / "saved"))
    model = load(tmp_path / "saved")
    assert model.card.max_length == 12
    result = ask(model, ITEMS, "score")
    np.testing.assert_allclose(result.scores, reference(tmp_path / "saved"), atol=1e-5)
    assert result.token_counts.max() == 12
    assert result.truncated == (0, 4, 5, 6, 7)
    assert load(tmp_path / "saved", max_length=4).card.max_length == 4
    with pytest.raises(ConfigError, match=r"max_length is 3, but .* puts 3 special tokens around every pair"):
        load(tmp_path / "saved", max_length=3)


def test_a_pair_that_is_too_long_is_refused_by_name(tmp_path: Path) -> None:
    save_classifier(tmp_path, "bert")
    model = load(tmp_path)
    items = [Pair("a", "b"), Pair("a", "b " * 61), Pair("a", "b " * 90000), Pair("a\ud800", "b"), Pair("a", "b " * 60)]
    request = Request(items, Options(truncate="error"), ("score",), first_item=10, field="documents")
    fits, long, very_long, broken, exact = model.tokenize(request, 0, 5)
    assert isinstance(fits, list)
    assert isinstance(exact, list)
    assert len(exact[0].ids) == 64
    assert isinstance(long, InputTooLong)
    assert "documents[11] has 65 tokens" in long.message
    assert "at most 64" in long.message
    assert isinstance(very_long, InputTooLong)
    assert "documents[12] has more than " in very_long.message
    assert isinstance(broken, InvalidRequest)
    assert broken.message == "documents[13]: its first text holds a lone surrogate"


def test_a_limit_for_the_document(tmp_path: Path) -> None:
    save_classifier(tmp_path, "bert")
    model = load(tmp_path)
    query, document = "q r s t", "a b c d e f"
    limited = ask(model, [Pair(query, document), Pair(document, document)], "score", max_tokens=4)
    cut = ask(model, [Pair(query, "a b c d"), Pair(document, "a b c d")], "score")
    np.testing.assert_array_equal(limited.scores, cut.scores)
    assert limited.truncated == (0, 1)
    left = ask(model, [Pair(query, document)], "score", max_tokens=4, truncate="left")
    np.testing.assert_array_equal(left.scores, ask(model, [Pair(query, "c d e f")], "score").scores)
    with pytest.raises(InputTooLong, match="has 6 tokens, but the request allows 4"):
        ask(model, [Pair(query, document)], "score", max_tokens=4, truncate="error")


def test_several_labels_do_not_rank(tmp_path: Path) -> None:
    save_classifier(tmp_path, "bert", labels=3)
    model = load(tmp_path)
    assert model.card.tasks == ("classify",)
    with pytest.raises(TaskNotSupported, match="does not do reranking; it does classification"):
        ask(model, ITEMS, "score")


def test_what_is_no_pair_of_texts_is_refused(tmp_path: Path) -> None:
    save_classifier(tmp_path, "bert")
    model = load(tmp_path)
    with pytest.raises(InvalidRequest, match="takes pairs of inputs"):
        ask(model, ["a text"], "score")
    with pytest.raises(InvalidRequest, match="takes pairs of texts, not of images"):
        ask(model, [Pair("a text", Image(b"..."))], "score")
    with pytest.raises(InvalidRequest, match='truncate is "chunk"'):
        ask(model, ITEMS, "score", truncate="chunk")
    with pytest.raises(ConfigError, match='truncate is "chunk"'):
        load(tmp_path, truncate="chunk")


def test_a_decoder_without_a_padding_token(tmp_path: Path) -> None:
    save_classifier(tmp_path, "qwen3", pad_token_id=None)
    encoder = CrossEncoder(str(tmp_path), device="cpu")
    pairs = [pair for pair in PAIRS if any(pair)]
    expected = [float(encoder.predict([pair])[0]) for pair in pairs]  # transformers refuses a batch
    for runtime in RUNTIMES:
        scores = ask(load(tmp_path, runtime=runtime), [Pair(*pair) for pair in pairs], "score").scores
        np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.skipif(not CE_TINY.is_dir(), reason="no ../shared/models/ce-tiny beside the repository")
def test_a_trained_cross_encoder() -> None:
    firsts, seconds, human = stsb()
    pairs = list(zip(firsts, seconds, strict=True))[:200]
    scores = ask(load(CE_TINY), [Pair(*pair) for pair in pairs], "score").scores
    expected = CrossEncoder(str(CE_TINY), device="cpu").predict(pairs)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert np.corrcoef(scores, human[:200])[0, 1] > 0.6


def test_an_onnx_file(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    saved = save_classifier(tmp_path, "bert")
    expected = reference(tmp_path)
    saved.config.return_dict = False
    ids = torch.tensor([[2, 5, 3, 6, 3], [2, 7, 3, 8, 3]])
    names = ["input_ids", "attention_mask", "token_type_ids"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            saved,
            (ids, torch.ones_like(ids), torch.tensor([[0, 0, 0, 1, 1]] * 2)),
            str(tmp_path / "model.onnx"),
            dynamo=False,
            opset_version=17,
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: {0: "batch", 1: "tokens"} for name in names},
        )
    (tmp_path / "model.safetensors").unlink()
    model = load(tmp_path)
    assert (model.card.runtime, model.card.tasks) == ("onnx", ("score", "classify"))
    np.testing.assert_allclose(ask(model, ITEMS, "score").scores, expected, atol=1e-5)
    np.testing.assert_allclose(ask(model, ITEMS, "score", alone=True).scores, expected, atol=1e-5)


def test_jina_bert(tmp_path: Path) -> None:
    tensors = random_tensors(jina_shapes(2, code=False))
    head = random_tensors({**linear_shapes("pooler.dense", SIZE, SIZE), **linear_shapes("classifier", 1, SIZE)})
    below = {f"bert.{name}": tensor for name, tensor in {**tensors, **head}.items() if "classifier" not in name}
    save_file({**below, **{name: head[name] for name in head if "classifier" in name}}, tmp_path / "model.safetensors")
    config = {
        "architectures": ["JinaBertForSequenceClassification"],
        "model_type": "bert",
        "position_embedding_type": "alibi",
        "feed_forward_type": "geglu",
        "hidden_size": SIZE,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 64,
        "num_labels": 1,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokens = tokenizer("bert")
    tokens.save_pretrained(tmp_path)
    found = tokens([list(pair) for pair in PAIRS], truncation="longest_first")
    expected = []
    for ids, types in zip(found["input_ids"], found["token_type_ids"], strict=True):
        hidden = jina_bert(config, tensors, torch.tensor(ids), torch.tensor(types))
        pooled = torch.tanh(linear(hidden[0], head, "pooler.dense"))
        expected.append(torch.sigmoid(linear(pooled, head, "classifier")).item())
    for runtime in ("openvino", "torch"):
        model = load(tmp_path, runtime=runtime)
        np.testing.assert_allclose(ask(model, ITEMS, "score").scores, expected, atol=1e-5)


def test_a_chat_template_that_is_not_applied_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_classifier(tmp_path, "qwen3")
    load(tmp_path)
    assert "chat template" not in caplog.text
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    load(tmp_path)
    assert "its chat template is not applied to pairs" in caplog.text
