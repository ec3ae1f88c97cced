"""`lemni embed` with the real default model, in processes of its own."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from lemni.hub import ModelFiles
from lemni.tasks.output_types import OutputType, convert
from lemni.tasks.ranges import ranges_of

from .command import COMMAND, environment, error_line, lemni

TEXTS = ["hello", "", "Wie setze ich mein Passwort zurück?", "a longer text, " * 60]


def reference(folder: Path, texts: list[str]) -> np.ndarray:
    transformers = pytest.importorskip("sentence_transformers")
    model = transformers.SentenceTransformer(str(folder), device="cpu")
    vectors: np.ndarray = model.encode(texts)
    return vectors


def vectors_of(output: str) -> np.ndarray:
    return np.array([json.loads(line)["embedding"] for line in output.splitlines()], dtype=np.float32)


@pytest.mark.torch
def test_vectors_are_those_of_sentence_transformers(minilm: ModelFiles, tmp_path: Path) -> None:
    expected = reference(minilm.path, TEXTS)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in TEXTS))
    printed = lemni("embed", *TEXTS, "--model", str(minilm.path), cwd=tmp_path)
    assert [json.loads(line)["text"] for line in printed.stdout.splitlines()] == TEXTS
    np.testing.assert_allclose(vectors_of(printed.stdout), expected, atol=1e-5)
    for ending in ("npy", "parquet"):
        arguments = ("rows.jsonl", "--field", "body", "--empty", "embed", "-o", f"out.{ending}")
        done = lemni("embed", *arguments, "-m", str(minilm.path), cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-5)
    parquet = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "out.parquet")
    assert parquet.column_names == ["id", "text", "embedding"]
    assert (parquet["id"].to_pylist(), parquet["text"].to_pylist()) == ([0, 1, 2, 3], TEXTS)
    np.testing.assert_allclose(np.array(parquet["embedding"].to_pylist()), expected, atol=1e-5)


def test_many_lines_keep_their_order_and_show_progress(minilm: ModelFiles, tmp_path: Path) -> None:
    lines = [f"number {n}" for n in range(600)]
    stdin = "\n".join(lines).encode()
    done = lemni("embed", "-", "--progress", "-m", str(minilm.path), "--dimensions", "16", cwd=tmp_path, stdin=stdin)
    assert done.returncode == 0
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == lines
    vectors = vectors_of(done.stdout)
    assert vectors.shape == (600, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    (alone,) = vectors_of(lemni("embed", lines[599], "-m", str(minilm.path), cwd=tmp_path).stdout)
    np.testing.assert_allclose(vectors[599], alone[:16] / np.linalg.norm(alone[:16]), atol=1e-4)
    assert "600/600" in done.stderr


def test_options_reach_the_model(minilm: ModelFiles, tmp_path: Path) -> None:
    env = {"LEMNI_MODEL": str(minilm.path)}
    plain = vectors_of(lemni("embed", "query: x", cwd=tmp_path, env=env).stdout)
    prompted = vectors_of(lemni("embed", "x", "--prompt", "query: ", cwd=tmp_path, env=env).stdout)
    np.testing.assert_allclose(prompted, plain, atol=1e-6)
    (tmp_path / "lemni.yaml").write_text(f"model: {minilm.path}\npooling: cls\n")
    first = vectors_of(lemni("embed", "x", "-c", "lemni.yaml", cwd=tmp_path).stdout)
    again = vectors_of(lemni("embed", "x", "--pooling", "cls", cwd=tmp_path, env=env).stdout)
    mean = vectors_of(lemni("embed", "x", "-c", "lemni.yaml", "--pooling", "mean", cwd=tmp_path).stdout)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - mean).max() > 0.01


def test_dotenv_of_the_working_directory_is_read(minilm: ModelFiles, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"LEMNI_MODEL={minilm.path}\nLEMNI_MAX_LENGTH=8\nLEMNI_TRUNCATE=error\n")
    line = error_line(lemni("embed", "short", "word " * 30, cwd=tmp_path))
    assert line.startswith("text 2 ('word word word word word word word word…') has 32 tokens")
    (tmp_path / ".env").write_text("LEMNI_MODLE=x\n")
    assert (
        error_line(lemni("embed", "x", cwd=tmp_path))
        == ".env: LEMNI_MODLE: unknown variable; did you mean LEMNI_MODEL?"
    )


def test_an_item_of_a_later_chunk_is_named_by_its_number(minilm: ModelFiles, tmp_path: Path) -> None:
    lines = ["fine"] * 300 + ["word " * 300]
    arguments = ("embed", "-", "--truncate", "error", "-m", str(minilm.path))
    stdin = "\n".join(lines).encode()
    done = lemni(*arguments, "--json", cwd=tmp_path, stdin=stdin)
    assert done.returncode == 2
    assert done.stderr.startswith("lemni: error: text 301 ('word ")
    line = error_line(lemni(*arguments, "--fail-fast", "-o", "v.npy", cwd=tmp_path, stdin=stdin))
    assert line.startswith("row 300 (id 300): the text has 302 tokens")
    assert not (tmp_path / "v.npy").exists()
    done = lemni(*arguments, "-o", "v.npy", "--overwrite", cwd=tmp_path, stdin=stdin)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "lemni: note: 1 of 301 rows was rejected; see v.npy.rejects.jsonl\n"
    assert np.load(tmp_path / "v.npy").shape == (300, 384)
    assert "has 302 tokens" in (tmp_path / "v.npy.rejects.jsonl").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a text, a file, or - for standard input."),
        (["-"], "there are no texts in -."),
        (["x", "-o", "v.csv"], "v.csv: the name must end in one of .npy, .npz, .jsonl, .ndjson, .parquet."),
        (
            ["x", "--dtype", "int3"],
            "--dtype: 'int3' is not allowed: must be 'auto', 'float32', 'float16', 'bfloat16', 'int8' or 'fp8'",
        ),
        (["x", "--config", "none.yaml"], "none.yaml: cannot be read: No such file or directory"),
        (["x", "--dimensions", "0"], "Invalid value for '--dimensions': 0 is not in the range x>=1."),
        (["x", "--model", "./nowhere"], "there is no folder './nowhere'"),
        (["x", "--model", "no/such", "--offline"], "model 'no/such' was not found. Tried: folder: "),
    ],
)
def test_mistakes(arguments: list[str], message: str, tmp_path: Path) -> None:
    assert error_line(lemni("embed", *arguments, cwd=tmp_path)).startswith(message)


def test_options_that_the_model_refuses(minilm: ModelFiles, tmp_path: Path) -> None:
    model = ("-m", str(minilm.path))
    assert "vectors of 1 to 384" in error_line(lemni("embed", "x", "--dimensions", "385", *model, cwd=tmp_path))
    assert "prompt_name 'query'" in error_line(lemni("embed", "x", "--prompt-name", "query", *model, cwd=tmp_path))


def test_several_models_to_choose_from(minilm: ModelFiles, tmp_path: Path) -> None:
    (tmp_path / "lemni.yaml").write_text(f"models: [other, {{model: {minilm.path}, served_name: mini}}]\n")
    line = error_line(lemni("embed", "x", "-c", "lemni.yaml", cwd=tmp_path))
    assert line == "the settings name several models; choose one with --model: other, mini"
    assert lemni("embed", "x", "-c", "lemni.yaml", "-m", "mini", cwd=tmp_path).returncode == 0


def test_the_log_is_quiet_unless_a_level_is_asked_for(minilm: ModelFiles, tmp_path: Path) -> None:
    bare = tmp_path / "bare"  # without modules.json the pooling is a guess, which is noted
    bare.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (bare / name).symlink_to(minilm.path / name)
    assert lemni("embed", "x", "-m", "./bare", cwd=tmp_path).stderr == ""
    for source in (["--log-level", "INFO"], []):
        env = {} if source else {"LEMNI_LOG_LEVEL": "info"}
        done = lemni("embed", "x", "-m", "./bare", *source, cwd=tmp_path, env=env)
        assert done.stderr.startswith("INFO lemni.")
        assert "pooling" in done.stderr


def test_a_traceback_only_when_asked_for(tmp_path: Path) -> None:
    assert "Traceback" in lemni("embed", "x", "--dtype", "int3", "--debug", cwd=tmp_path).stderr
    assert "Traceback" in lemni("embed", "x", "--dtype", "int3", cwd=tmp_path, env={"LEMNI_DEBUG": "1"}).stderr
    error_line(lemni("embed", "x", "--dtype", "int3", cwd=tmp_path, env={"LEMNI_DEBUG": "0"}))


def test_ctrl_c_while_reading_is_quiet(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "embed", "-"],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    # More than a pipe holds: once it is written, the command is reading.
    assert process.stdin is not None
    process.stdin.write(b"line\n" * 100_000)
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (130, b"", b"")


def test_ctrl_c_while_computing_is_quiet_and_leaves_what_is_needed_to_resume(
    minilm: ModelFiles, tmp_path: Path
) -> None:
    (tmp_path / "many.txt").write_text("some words to compute, again and again\n" * 200_000)
    process = subprocess.Popen(
        [*COMMAND, "embed", "many.txt", "-m", str(minilm.path), "-o", "v.npy", "--shard-rows", "256"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    shards = tmp_path / "v.npy.lemni" / "shards"
    while not list(shards.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.strip()) == (130, b"", b"")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["many.txt", "v.npy.lemni"]
    assert list(shards.glob("*.json"))


def test_a_reader_that_goes_away_ends_it_quietly(minilm: ModelFiles, tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("some words\n" * 50_000)
    with subprocess.Popen(
        [*COMMAND, "embed", "many.txt", "-m", str(minilm.path)],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"text":"some words"')
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 1


def test_a_terminal_gets_a_short_form(minilm: ModelFiles, tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    mine, its = pty.openpty()
    command = [*COMMAND, "embed", "hello", "-m", str(minilm.path)]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=its, stderr=subprocess.PIPE)
    _, err = process.communicate(timeout=60)
    os.close(its)
    shown = os.read(mine, 4096).decode() if select.select([mine], [], [], 0)[0] else ""
    os.close(mine)
    assert (process.returncode, err) == (0, b"")
    assert shown.startswith("hello  384 dimensions  [")
    assert len(shown.splitlines()) == 1


def test_output_types_are_those_of_the_library(minilm: ModelFiles, tmp_path: Path) -> None:
    env = {"LEMNI_CACHE_DIR": str(tmp_path / "cache"), "LEMNI_MODEL": str(minilm.path)}
    floats = vectors_of(lemni("embed", *TEXTS, cwd=tmp_path, env=env).stdout)
    types: tuple[OutputType, ...] = ("float16", "binary", "ubinary")
    for output_type in types:
        done = lemni("embed", *TEXTS, "--output-type", output_type, "-o", "v.npy", cwd=tmp_path, env=env)
        assert (done.returncode, done.stderr) == (0, "")
        codes, expected = np.load(tmp_path / "v.npy"), convert(floats, output_type)
        assert codes.dtype == expected.dtype
        np.testing.assert_allclose(codes.astype(np.float32), expected.astype(np.float32), atol=1e-3)
    assert not (tmp_path / "cache" / "ranges").exists()


def test_int8_ranges_are_measured_once_and_are_the_servers(minilm: ModelFiles, tmp_path: Path) -> None:
    env = {"LEMNI_CACHE_DIR": str(tmp_path), "LEMNI_MODEL": str(minilm.path)}
    asked = ("embed", *TEXTS, "--dimensions", "64")
    floats = vectors_of(lemni(*asked, cwd=tmp_path, env=env).stdout)

    def check(codes: np.ndarray, output_type: OutputType, measured: np.ndarray) -> None:
        expected = convert(floats, output_type, ranges_of(measured, dimensions=64, normalize=True))
        # A value at the edge of a step may fall on either side.
        assert np.abs(codes - expected.astype(np.float32)).max() <= 1

    lemni(*asked, "--output-type", "int8", "-o", "v.npy", cwd=tmp_path, env=env)
    [kept] = (tmp_path / "ranges").glob("*.npy")
    measured = np.load(kept)
    codes = np.load(tmp_path / "v.npy")
    assert codes.dtype == np.int8
    check(codes, "int8", measured)
    # Whoever comes next uses what is kept.
    other = np.ascontiguousarray(measured[:, ::-1])
    np.save(kept, other)
    check(vectors_of(lemni(*asked, "--output-type", "uint8", cwd=tmp_path, env=env).stdout), "uint8", other)


@pytest.mark.torch
def test_sides_of_a_search(tmp_path: Path) -> None:
    from sentence_transformers.models import Pooling

    from tests.tasks.tiny import sentence_model

    prompts = {"query": "ask: ", "document": "text: "}
    model = sentence_model(tmp_path, [Pooling(32)], prompts=prompts)
    for side in ("query", "document"):
        done = lemni("embed", "the cat", "--input-type", side, "-m", "./model", cwd=tmp_path)
        np.testing.assert_allclose(vectors_of(done.stdout), model.encode(["the cat"], prompt_name=side), atol=1e-5)


@pytest.mark.torch
def test_sparse_models_give_terms(tmp_path: Path) -> None:
    from tests.tasks.sparse_models import splade

    texts = ["the cat", "some words"]
    expected = splade(tmp_path / "model").encode(texts, convert_to_sparse_tensor=False).numpy()
    done = lemni("embed", *texts, "-m", "./model", cwd=tmp_path)
    for line, row in zip(done.stdout.splitlines(), expected, strict=True):
        vector = json.loads(line)["embedding"]
        assert vector["indices"] == np.flatnonzero(row).tolist()
        np.testing.assert_allclose(vector["values"], row[vector["indices"]], atol=1e-5)
    lemni("embed", *texts, "-m", "./model", "-o", "v.npz", cwd=tmp_path)
    assert np.load(tmp_path / "v.npz")["lengths"].tolist() == np.count_nonzero(expected, axis=1).tolist()
    line = error_line(lemni("embed", *texts, "-m", "./model", "-o", "v.npy", cwd=tmp_path))
    assert line.startswith("v.npy: model gives sparse vectors, which are written to .npz, .jsonl, .ndjson.")
    line = error_line(lemni("embed", *texts, "-m", "./model", "--output-type", "int8", cwd=tmp_path))
    assert line == "--output-type is for dense vectors, which model does not give"


@pytest.mark.torch
def test_late_interaction_models_give_a_vector_per_token(tmp_path: Path) -> None:
    from sentence_transformers import MultiVectorEncoder

    from tests.tasks.test_colbert import save_encoder

    folder = save_encoder(tmp_path / "base")
    MultiVectorEncoder(str(folder), device="cpu").save(str(tmp_path / "model"))
    texts = ["the cat", "some words and more"]
    expected = MultiVectorEncoder(str(tmp_path / "model"), device="cpu").encode(texts)
    done = lemni("embed", *texts, "-m", "./model", cwd=tmp_path)
    for line, matrix in zip(done.stdout.splitlines(), expected, strict=True):
        np.testing.assert_allclose(json.loads(line)["embedding"], matrix, atol=1e-5)
    lemni("embed", *texts, "-m", "./model", "-o", "v.npz", cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "v.npz")["vectors"], np.concatenate(expected), atol=1e-5)


@pytest.mark.torch
def test_a_model_that_does_not_embed(tmp_path: Path) -> None:
    from tests.tasks.classifiers import save_classifier

    save_classifier(tmp_path / "model", "bert", labels=3)
    line = error_line(lemni("embed", "x", "-m", "./model", cwd=tmp_path))
    assert line.startswith("model does not do embeddings; it does classification. Name an embedding model with --model")
