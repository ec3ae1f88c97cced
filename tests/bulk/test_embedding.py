"""`lemni.bulk.embed` from Python: every argument, against what the library gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lemni
import lemni.bulk
from lemni.bulk.plan import Model
from lemni.config import EngineSettings, HubSettings, MediaSettings, ModelSettings
from lemni.errors import ConfigError, InvalidRequest, ModelNotFound
from lemni.hub import ModelFiles
from lemni.tasks.output_types import OutputType, convert
from lemni.tasks.ranges import ranges_of
from lemni.types import Image

from .conftest import FAST, texts

TEXTS = texts(30)
QUIET: dict[str, Any] = {"progress": False}


def lines(path: Path, given: list[str] = TEXTS) -> Path:
    path.write_text("".join(f"{text}\n" for text in given))
    return path


def rejects(done: lemni.bulk.Summary) -> list[tuple[int, str]]:
    found = [json.loads(line) for line in Path(done.rejects or "").read_text().splitlines()]
    return [(one["row"], one["reason"]) for one in found]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_multimodal import save_clip

    return save_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.mark.torch
def test_images_by_path(clip: Path, tmp_path: Path) -> None:
    from tests.tiny_multimodal import picture

    pictures = [picture(seed=seed) for seed in range(5)]
    (tmp_path / "images").mkdir()
    rows = []
    for number, data in enumerate(pictures):
        (tmp_path / "images" / f"{number}.png").write_bytes(data)
        rows.append({"id": f"p{number}", "file": f"images/{number}.png", "title": f"t{number}"})
    (tmp_path / "images" / "broken.png").write_bytes(pictures[0][:60])
    rows.insert(2, {"id": "broken", "file": "images/broken.png"})
    rows.insert(4, {"id": "gone", "file": "images/gone.png"})
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with lemni.load(str(clip)) as model:
        expected = model.embed([Image(data) for data in pictures])
    done = lemni.bulk.embed(
        tmp_path / "rows.jsonl", tmp_path / "out.jsonl", model=str(clip), text="file", images=True, **QUIET
    )
    assert (done.rows, done.written, done.rejected) == (7, 5, 2)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["id"], row["title"]) for row in found] == [(f"p{n}", f"t{n}") for n in range(5)]
    np.testing.assert_allclose([row["embedding"] for row in found], expected, atol=1e-5)
    (broken, why), (gone, lost) = rejects(done)
    assert (broken, gone) == (2, 4)
    assert "image" in why
    assert "no such file" in lost
    # A folder of images is a row for each.
    (tmp_path / "images" / "broken.png").unlink()
    done = lemni.bulk.embed(tmp_path / "images", tmp_path / "all.npy", model=str(clip), images=True, **QUIET)
    assert (done.rows, done.rejected) == (5, 0)
    np.testing.assert_allclose(np.load(tmp_path / "all.npy"), expected, atol=1e-5)
    ids = np.load(tmp_path / "all.ids.npy").tolist()
    assert [Path(one).name for one in ids] == [f"{n}.png" for n in range(5)]


@pytest.mark.torch
def test_prompts_and_sides(tmp_path: Path) -> None:
    from sentence_transformers.models import Pooling

    from tests.tasks.tiny import sentence_model

    prompts = {"query": "ask: ", "document": "text: "}
    theirs = sentence_model(tmp_path, [Pooling(32)], prompts=prompts)
    given = ["the cat", "some words", "the"]
    source = lines(tmp_path / "some.txt", given)

    def vectors(name: str, **wanted: Any) -> np.ndarray:
        lemni.bulk.embed(source, tmp_path / f"{name}.npy", model=str(tmp_path / "model"), **wanted, **QUIET)
        found: np.ndarray = np.load(tmp_path / f"{name}.npy")
        return found

    for side in ("query", "document"):
        np.testing.assert_allclose(
            vectors(side, input_type=side), theirs.encode(given, prompt_name=side), atol=1e-5, err_msg=side
        )
    np.testing.assert_allclose(vectors("named", prompt_name="query"), vectors("query", input_type="query"))
    np.testing.assert_allclose(vectors("own", prompt="the cat "), theirs.encode(given, prompt="the cat "), atol=1e-5)
    with pytest.raises(InvalidRequest, match="prompt_name"):
        vectors("none", prompt_name="passage")
    assert not (tmp_path / "none.npy.lemni").exists()


def test_dimensions_and_length(tmp_path: Path) -> None:
    source = lines(tmp_path / "some.txt")
    for wanted in ({"dimensions": 16}, {"dimensions": 16, "normalize": False}, {"normalize": False}):
        lemni.bulk.embed(source, tmp_path / "out.npy", model=FAST, overwrite=True, **wanted, **QUIET)  # type: ignore[arg-type]
        with lemni.load(FAST) as model:
            expected = model.embed(TEXTS, **wanted)  # type: ignore[call-overload]
        np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-6)
    with pytest.raises(InvalidRequest, match="dimensions"):
        lemni.bulk.embed(source, tmp_path / "wide.npy", model=FAST, dimensions=100_000, **QUIET)
    assert not (tmp_path / "wide.npy.lemni").exists()


def test_texts_that_are_too_long(minilm: ModelFiles, tmp_path: Path) -> None:
    given = ["short", "word " * 300, "also short", "word " * 400]
    source, name = lines(tmp_path / "some.txt", given), str(minilm.path)
    done = lemni.bulk.embed(source, tmp_path / "cut.npy", model=name, **QUIET)
    assert (done.written, done.truncated, done.rejected) == (4, 2, 0)
    with lemni.load(name) as model:
        expected = model.embed(given)
    np.testing.assert_allclose(np.load(tmp_path / "cut.npy"), expected, atol=1e-5)
    done = lemni.bulk.embed(source, tmp_path / "whole.npy", model=name, truncate="error", **QUIET)
    assert (done.written, done.truncated, done.rejected) == (2, 0, 2)
    np.testing.assert_allclose(np.load(tmp_path / "whole.npy"), expected[[0, 2]], atol=1e-5)
    assert [row for row, _ in rejects(done)] == [1, 3]
    for (_, reason), tokens in zip(rejects(done), (302, 402), strict=True):
        assert reason.startswith(f"the text has {tokens} tokens")
        assert "256" in reason


def test_int8_has_the_ranges_of_everyone_else(fast_folder: Path, tmp_path: Path) -> None:
    """As `tests/cli/test_embed.py` has it for texts, and the server's tests for requests."""
    cache = HubSettings.model_validate({"cache_dir": tmp_path / "cache"})
    chosen = replace(Model.named(str(fast_folder)), hub=cache)
    source = lines(tmp_path / "some.txt")
    lemni.bulk.embed(source, tmp_path / "a.npy", model=chosen, output_type="int8", **QUIET)
    [kept] = (tmp_path / "cache" / "ranges").glob("*.npy")
    with lemni.load(str(fast_folder)) as model:
        raw = model.embed(TEXTS)
        normalized = bool(np.allclose(np.linalg.norm(raw, axis=1), 1, atol=1e-5))

    def check(found: np.ndarray, output_type: OutputType, measured: np.ndarray) -> None:
        codes = convert(raw, output_type, ranges_of(measured, normalize=normalized))
        assert found.dtype == codes.dtype
        # A value at the edge of a step may fall on either side.
        assert np.abs(found.astype(int) - codes.astype(int)).max() <= 1
        assert (found == codes).mean() > 0.99

    measured = np.load(kept)
    check(np.load(tmp_path / "a.npy"), "int8", measured)
    # Whoever comes next uses what is kept.
    other = np.ascontiguousarray(measured[:, ::-1])
    np.save(kept, other)
    lemni.bulk.embed(source, tmp_path / "b.npy", model=chosen, output_type="uint8", **QUIET)
    check(np.load(tmp_path / "b.npy"), "uint8", other)


def test_several_files_are_one_input(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        lines(tmp_path / "in" / f"{number}.txt", TEXTS[number * 10 : number * 10 + 10])
    with lemni.load(FAST) as model:
        expected = model.embed(TEXTS)
    files = sorted((tmp_path / "in").iterdir())
    how: dict[str, Any] = {"model": FAST, "shard_rows": 4, **QUIET}
    for name, given in (("list", files), ("glob", f"{tmp_path}/in/*.txt")):
        done = lemni.bulk.embed(given, tmp_path / f"{name}.npy", **how)
        assert (done.rows, done.written) == (30, 30)
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), expected, atol=1e-6)
    lemni.bulk.embed(files[::-1], tmp_path / "back.npy", **how)
    turned = np.concatenate([expected[20:], expected[10:20], expected[:10]])
    np.testing.assert_allclose(np.load(tmp_path / "back.npy"), turned, atol=1e-6)


def test_two_replicas_give_the_bytes_of_one(minilm: ModelFiles, tmp_path: Path) -> None:
    source = lines(tmp_path / "some.txt", texts(120))
    for replicas in (1, 2):
        model = Model(
            ModelSettings.model_validate({"model": str(minilm.path)}),
            EngineSettings.model_validate({"replicas": replicas, "threads": 1}),
            HubSettings.model_validate({}),
            MediaSettings.model_validate({}),
        )
        done = lemni.bulk.embed(source, tmp_path / f"{replicas}.npy", model=model, shard_rows=16, **QUIET)
        assert done.written == 120
    assert (tmp_path / "1.npy").read_bytes() == (tmp_path / "2.npy").read_bytes()
    with lemni.load(str(minilm.path)) as loaded:
        np.testing.assert_allclose(np.load(tmp_path / "2.npy"), loaded.embed(texts(120)), atol=1e-5)


def test_a_job_as_a_summary(tmp_path: Path) -> None:
    source = lines(tmp_path / "some.txt", [*TEXTS, "", "  "])
    done = lemni.bulk.embed(source, tmp_path / "out.npy", model=FAST, shard_rows=10, **QUIET)  # the last has none
    assert (done.rows, done.written, done.rejected, done.truncated, done.resumed) == (32, 30, 2, 0, 0)
    assert done.seconds > 0
    assert done.outputs[0] == str(tmp_path / "out.npy")
    assert done.rejects == str(tmp_path / "out.npy.rejects.jsonl")
    assert rejects(done) == [(30, "is empty"), (31, "is empty")]
    written = json.loads(Path(done.manifest).read_text())
    assert written["summary"]["tokens"] == done.tokens > 30
    assert written["job"]["model"]["revision"]
    done = lemni.bulk.embed(source, tmp_path / "every.npy", model=FAST, empty="embed", manifest=tmp_path / "j", **QUIET)
    assert (done.written, done.rejected, done.rejects) == (32, 0, None)
    assert done.manifest == str(tmp_path / "j.manifest.json")


@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [
        ({"shard_row": 4}, ConfigError, "unknown argument 'shard_row'; known: text, id, carry, "),
        ({"shard_rows": 0}, ConfigError, "shard_rows is 0; it must be at least 1"),
        ({"max_rejects": -1}, ConfigError, "max_rejects is -1; it must be at least 0"),
        ({"empty": "keep"}, ConfigError, "empty is 'keep'; it must be 'reject' or 'embed'"),
        ({"price_per_hour": -1.0}, ConfigError, "price_per_hour is -1.0; it must be at least 0"),
        ({"output_type": "int4"}, ConfigError, "output_type is 'int4'; it must be one of float32, float16, "),
        ({"task": "rerank"}, ConfigError, "task is 'rerank'; it must be one of embed, sparse, multi_vector"),
        ({"task": "sparse"}, InvalidRequest, "does not do sparse embeddings; it does embeddings"),
        ({"images": True}, InvalidRequest, "takes no images; it takes text"),
        ({"model": "./nowhere"}, ModelNotFound, "there is no folder './nowhere'"),
    ],
)
def test_arguments_that_are_wrong(wanted: dict[str, Any], error: type[Exception], message: str, tmp_path: Path) -> None:
    source = lines(tmp_path / "some.txt")
    how = {"model": FAST, **QUIET, **wanted}
    with pytest.raises(error, match=message.replace("(", r"\(")):
        lemni.bulk.embed(source, tmp_path / "out.npy", **how)
    assert [path.name for path in tmp_path.iterdir()] == ["some.txt"]


def test_outputs_among_the_inputs_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    source = lines(folder / "some.txt")
    for given, output in (
        (folder, folder / "out.npy"),
        (folder, folder / "deep" / "out.npy"),
        (f"{folder}/", f"{folder}/"),
        (folder, f"{folder}/parts/"),
        (source, source),
    ):
        with pytest.raises(InvalidRequest, match=r"write the output somewhere else|must end in"):
            lemni.bulk.embed(given, output, model=FAST, **QUIET)
        assert [path.name for path in folder.iterdir()] == ["some.txt"]


def test_a_folder_is_written_as_it_is_named(tmp_path: Path) -> None:
    """A `Path` has no slash at its end: it is a folder where there is one, or where a format is no ending."""
    source = lines(tmp_path / "some.txt")
    lemni.bulk.embed(source, f"{tmp_path}/a/", model=FAST, shard_rows=20, **QUIET)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["part-00000.parquet", "part-00001.parquet"]
    with pytest.raises(InvalidRequest, match="the name must end in one of"):
        lemni.bulk.embed(source, tmp_path / "b", model=FAST, **QUIET)
    (tmp_path / "b").mkdir()
    with pytest.raises(InvalidRequest, match="is a folder; a folder of files needs a format"):
        lemni.bulk.embed(source, tmp_path / "b", model=FAST, **QUIET)
    lemni.bulk.embed(source, tmp_path / "b", model=FAST, format="npy", **QUIET)
    with lemni.load(FAST) as model:
        np.testing.assert_allclose(np.load(tmp_path / "b" / "part-00000.npy"), model.embed(TEXTS), atol=1e-6)
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["a.manifest.json", "b.manifest.json"]
