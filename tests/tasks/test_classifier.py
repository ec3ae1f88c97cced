"""Labels of texts and pairs, against transformers' text-classification pipeline on the same folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from transformers import AutoTokenizer, pipeline

from lemni.errors import InvalidRequest, ModelLoadError
from lemni.tasks.activations import ACTIVATIONS
from lemni.tasks.pairs import longest_first
from lemni.types import Chunks, Item, Pair
from tests.shared import STSB
from tests.tasks.classifiers import FAMILIES, FOREIGN, RUNTIMES, ask, load, save_classifier
from tests.tasks.test_cross_encoder import rewrite
from tests.tasks.tiny import TEXTS

PAIRS = [("a premise", "its hypothesis"), ("the cat sat", "a cat sat on the mat"), ("zzz", "z")]
CLS_SPAM = STSB.parents[2] / "models" / "cls-spam"


def reference(folder: Path, texts: list[Any], **options: Any) -> tuple[list[str], NDArray[np.float32]]:
    """Names of the labels, and their values [texts, labels] in the order of their ids."""
    classify: Any = pipeline("text-classification", model=str(folder), device="cpu", **options)
    found = [
        {one["label"]: one["score"] for one in classify(text, top_k=None, truncation=True, max_length=64)}
        for text in texts
    ]
    names = [classify.model.config.id2label[index] for index in range(classify.model.config.num_labels)]
    return names, np.array([[one[name] for name in names] for one in found], dtype=np.float32)


def as_pipeline(pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"text": first, "text_pair": second} for first, second in pairs]


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_of_every_family(tmp_path: Path, family: str) -> None:
    save_classifier(tmp_path, family, labels=3)
    texts = [text for text in TEXTS if text]
    names, expected = reference(tmp_path, [*texts, *as_pipeline(PAIRS)])
    assert np.ptp(expected, axis=0).max() > 1e-2
    items: list[Item] = [*texts, *(Pair(first, second) for first, second in PAIRS)]
    for runtime in ("transformers",) if family in FOREIGN else RUNTIMES:
        model = load(tmp_path, runtime=runtime)
        assert model.card.tasks == ("classify",)
        assert list(model.card.labels) == names == ["label 0", "label 1", "label 2"]
        labels = ask(model, items, "classify").labels
        np.testing.assert_allclose(labels, expected, atol=1e-5, err_msg=runtime)
        np.testing.assert_allclose(ask(model, items, "classify", alone=True).labels, labels, atol=1e-6)
        np.testing.assert_allclose(ask(model, items[::-1], "classify").labels, labels[::-1], atol=1e-6)


@pytest.mark.parametrize(
    ("family", "pooling"),
    [("modernbert", "cls"), ("modernbert", "mean"), ("eurobert", "bos"), ("eurobert", "mean"), ("eurobert", "late")],
)
def test_what_a_head_pools(tmp_path: Path, family: str, pooling: str) -> None:
    save_classifier(tmp_path, family, labels=2, classifier_pooling=pooling)
    _, expected = reference(tmp_path, TEXTS)
    np.testing.assert_allclose(ask(load(tmp_path), TEXTS, "classify").labels, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("problem", "labels"),
    [
        ("multi_label_classification", 3),
        ("single_label_classification", 3),
        ("regression", 2),
        ("regression", 1),
        (None, 1),
        (None, 2),
    ],
)
def test_the_activation_by_the_kind_of_problem(tmp_path: Path, problem: str | None, labels: int) -> None:
    save_classifier(tmp_path, "bert", labels=labels, problem_type=problem)
    model = load(tmp_path)
    _, expected = reference(tmp_path, TEXTS)
    np.testing.assert_allclose(ask(model, TEXTS, "classify").labels, expected, atol=1e-5)
    for name in ACTIVATIONS:
        _, wanted = reference(tmp_path, TEXTS, function_to_apply=name)
        np.testing.assert_allclose(ask(model, TEXTS, "classify", activation=name).labels, wanted, atol=1e-5)


def test_activations_of_extreme_logits() -> None:
    logits = np.array([[-1000, 0, 1000], [-90, -80, -85]], dtype=np.float32)
    with np.errstate(over="raise", invalid="raise"):
        np.testing.assert_allclose(ACTIVATIONS["sigmoid"](logits)[0], [0, 0.5, 1])
        np.testing.assert_allclose(ACTIVATIONS["softmax"](logits).sum(axis=1), 1, atol=1e-6)
    small = ACTIVATIONS["sigmoid"](logits)[1]
    assert small[1] > small[2] > small[0] > 0  # tiny probabilities keep their order
    assert small.dtype == ACTIVATIONS["softmax"](logits).dtype == np.float32


def test_names_of_labels(tmp_path: Path) -> None:
    save_classifier(tmp_path, "bert", labels=12)
    assert load(tmp_path).card.labels == tuple(f"label {index}" for index in range(12))
    rewrite(tmp_path / "config.json", id2label=None)
    assert load(tmp_path).card.labels[10:] == ("LABEL_10", "LABEL_11")
    rewrite(tmp_path / "config.json", id2label={"0": "spam", "1": "ham"})
    with pytest.raises(ModelLoadError, match=r"weights give 12 labels, but id2label in config\.json names 2"):
        load(tmp_path)


def test_weights_without_a_head_are_refused(tmp_path: Path) -> None:
    save_classifier(tmp_path, "roberta", labels=2)
    file = tmp_path / "model.safetensors"
    save_file({name: array for name, array in load_file(file).items() if "out_proj" not in name}, file)
    for runtime in RUNTIMES:
        with pytest.raises(ModelLoadError, match=r"classifier\.out_proj\.weight"):
            load(tmp_path, runtime=runtime)


def test_token_ids_equal_their_text(tmp_path: Path) -> None:
    save_classifier(tmp_path, "bert", labels=2)
    model, tokenizer = load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    ids: list[Item] = [tokenizer(text)["input_ids"] for text in TEXTS]
    np.testing.assert_array_equal(ask(model, ids, "classify").labels, ask(model, TEXTS, "classify").labels)


def test_chunks_are_refused(tmp_path: Path) -> None:
    save_classifier(tmp_path, "bert", labels=2)
    with pytest.raises(InvalidRequest, match="takes texts and pairs of texts only"):
        ask(load(tmp_path), [Chunks(("a", "b"))], "classify")


def test_gte_as_the_hub_has_it(tmp_path: Path) -> None:
    save_classifier(tmp_path, "gte", labels=2)
    _, expected = reference(tmp_path, TEXTS)
    file = tmp_path / "model.safetensors"
    save_file({name.replace("gte.", "new."): array for name, array in load_file(file).items()}, file)
    rewrite(tmp_path / "config.json", model_type="new", architectures=["NewForSequenceClassification"])
    np.testing.assert_allclose(ask(load(tmp_path), TEXTS, "classify").labels, expected, atol=1e-5)


def test_a_folder_with_pooling_embeds(tmp_path: Path) -> None:
    from sentence_transformers.models import Pooling

    from tests.tasks.tiny import sentence_model

    sentence_model(tmp_path, [Pooling(32)])
    rewrite(tmp_path / "model" / "config.json", architectures=["BertForSequenceClassification"])
    assert load(tmp_path / "model").card.tasks[0] == "embed"


def test_longest_first_leaves_as_much_as_fits() -> None:
    for room in (1, 2, 7, 8):
        for first in range(20):
            for second in range(max(0, room + 1 - first), 20):
                sizes = longest_first(first, second, room)
                assert sum(sizes) == room
                assert sizes[0] <= first
                assert sizes[1] <= second
    assert longest_first(5, 100, 61) == (5, 56)
    assert longest_first(100, 5, 61) == (56, 5)
    assert (longest_first(80, 90, 61), longest_first(90, 80, 61)) == ((30, 31), (31, 30))


@pytest.mark.skipif(not CLS_SPAM.is_dir(), reason="no ../shared/models/cls-spam beside the repository")
def test_a_trained_classifier() -> None:
    texts = ["WIN a FREE prize now!!! click here", "Hi Bob, the meeting is moved to Thursday. Regards, Ann"]
    names, expected = reference(CLS_SPAM, texts)
    model = load(CLS_SPAM)
    assert list(model.card.labels) == names
    np.testing.assert_allclose(ask(model, texts, "classify").labels, expected, atol=1e-5)
