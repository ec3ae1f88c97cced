"""ColPali, ColQwen2, ColQwen2.5 and ColModernVBert against transformers, one input at a time."""

from __future__ import annotations

import numpy as np
import pytest
import transformers

from lemni.hub.kinds import MULTIMODAL
from lemni.runtimes.multimodal.late_interaction import LATE_INTERACTION
from lemni.runtimes.multimodal.towers import TOWERS
from lemni.types import Image, Item, Options, PackedBatch, Sequence
from tests import tiny_multimodal as tiny
from tests.runtimes.multimodal_models import TEXTS, TOLERANCE, Model, far, open_model, opened, pictures

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module", params=["colpali", "colqwen2", "colqwen2.5", "colmodernvbert"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tiny.SAVERS[request.param](tmp_path_factory.mktemp("pages"))
    return open_model(folder)


def _expected(model: Model, item: Item) -> np.ndarray:
    processor = model.processor
    inputs = (
        processor.process_images(images=[opened(item)])
        if isinstance(item, Image)
        else processor.process_queries([item])
    )
    inputs.pop("labels", None)
    with torch.inference_mode():
        embeddings = model.reference(**inputs).embeddings[0]
    return embeddings[inputs["attention_mask"][0].bool()].numpy()


def test_one_batch_equals_transformers_one_at_a_time(model: Model) -> None:
    items: list[Item] = []
    for text, picture in zip((*TEXTS, "last"), pictures(), strict=True):
        items += [text, picture]
    expected = [_expected(model, item) for item in items]
    rows = model.rows(items)
    assert far(rows, expected) < TOLERANCE
    assert far(model.rows(items[::-1]), expected[::-1]) < TOLERANCE
    assert all(np.abs(np.linalg.norm(row, axis=1) - 1).max() < TOLERANCE for row in rows)


def test_a_row_is_the_same_alone_and_beside_a_copy(model: Model) -> None:
    items: list[Item] = ["a", *pictures()[:4], "the cat sat on the mat " * 3]
    together = model.rows([*items, *items])
    alone = [row for item in items for row in model.rows([item])]
    assert far(together, [*alone, *alone]) < TOLERANCE / 10


def test_a_document_is_a_text_without_augmentation(model: Model) -> None:
    processor = model.processor
    text = "the cat sat"
    plain = {"ColPaliForRetrieval": f"<bos>{text}\n"}.get(model.lemni.card.architecture, text)
    [[document]] = model.encode([text], Options(input_type="document"))
    assert document.ids.tolist() == processor.tokenizer(plain)["input_ids"]
    [[query]] = model.encode([text])
    assert query.ids.tolist() == processor.process_queries([text])["input_ids"][0].tolist()
    assert len(query.ids) >= len(document.ids) + 10


def test_the_smallest_sequence_runs(model: Model) -> None:
    [row] = model.lemni.new_runtime(0).run(PackedBatch.pack([Sequence(np.zeros(1, np.int32), outputs=())]))
    assert row["multi_vector"].shape == (1, tiny.DIMENSIONS)


def test_the_card_says_what_it_takes(model: Model) -> None:
    card = model.lemni.card
    assert (card.runtime, card.dimensions, card.modalities) == ("multimodal", tiny.DIMENSIONS, ("text", "image"))
    assert card.tasks == ("multi_vector", "score")
    assert card.prompts == {"query": model.processor.query_prefix, "document": ""}


def test_every_model_type_has_a_class() -> None:
    assert {*TOWERS, *LATE_INTERACTION} == MULTIMODAL
    assert all(hasattr(transformers, name) for name in (*TOWERS.values(), *LATE_INTERACTION.values()))
