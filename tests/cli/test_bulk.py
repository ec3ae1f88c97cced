"""`lemni embed FILES -o OUTPUT` as a user runs it, in processes of their own."""

from __future__ import annotations

import json
import os
import select
import signal
import sqlite3
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lemni
from lemni import hub
from lemni.config import HubSettings
from lemni.hub import ModelFiles
from lemni.tasks.output_types import OutputType, convert
from lemni.tasks.ranges import ranges_of
from tests.bulk.conftest import FAST, texts

from .command import COMMAND, environment, error_line
from .command import lemni as run

TEXTS = texts(40)
YEARS = list(range(1900, 1940))


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """The library's own vectors of TEXTS."""
    with lemni.load(FAST) as model:
        vectors: np.ndarray = model.embed(TEXTS)
    return vectors


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with the texts as parquet, two files of it, and as CSV."""
    table = pa.table({"key": [f"k{n}" for n in range(40)], "body": TEXTS, "year": YEARS, "note": ["n"] * 40})
    pq.write_table(table, tmp_path / "rows.parquet")
    (tmp_path / "parts").mkdir()
    for number in range(2):
        pq.write_table(table.slice(number * 20, 20), tmp_path / "parts" / f"{number}.parquet")
    lines = [f'k{n},"{text}",{year}' for n, (text, year) in enumerate(zip(TEXTS, YEARS, strict=True))]
    (tmp_path / "rows.csv").write_text("key,body,year\n" + "\n".join(lines) + "\n")
    return tmp_path


def embed(*arguments: str, cwd: Path, code: int = 0, **rest: Any) -> subprocess.CompletedProcess[str]:
    done = run("embed", *arguments, "-m", FAST, cwd=cwd, **rest)
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    return done


def refused(*arguments: str, cwd: Path, **rest: Any) -> str:
    return error_line(run("embed", *arguments, "-m", FAST, cwd=cwd, **rest))


def close(found: Any, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.asarray(found, np.float32), expected, atol=1e-6)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_parquet_to_parquet_with_what_stood_beside_it(here: Path, expected: np.ndarray) -> None:
    done = embed("rows.parquet", "--text", "body", "--id", "key", "-o", "out.parquet", cwd=here)
    assert (done.stdout, done.stderr) == ("", "")
    table = pq.read_table(here / "out.parquet")
    assert table.column_names == ["id", "text", "year", "note", "embedding"]
    assert table["id"].to_pylist() == [f"k{n}" for n in range(40)]
    assert (table["text"].to_pylist(), table["year"].to_pylist()) == (TEXTS, YEARS)
    assert table.schema.field("year").type == pa.int64()
    close(table["embedding"].to_pylist(), expected)
    assert names(here) == ["out.parquet", "out.parquet.manifest.json", "parts", "rows.csv", "rows.parquet"]


def test_csv_with_one_column_kept(here: Path, expected: np.ndarray) -> None:
    asked = ("rows.csv", "--text", "body", "--id", "key", "--carry", "year")
    embed(*asked, "-o", "out.jsonl", "--vector-column", "v", cwd=here)
    rows = [json.loads(line) for line in (here / "out.jsonl").read_text().splitlines()]
    assert [list(row) for row in rows] == [["id", "text", "year", "v"]] * 40
    assert [(row["id"], row["text"], int(row["year"])) for row in rows] == list(
        zip((f"k{n}" for n in range(40)), TEXTS, YEARS, strict=True)
    )
    close([row["v"] for row in rows], expected)


def test_standard_input_globs_and_queries(here: Path, expected: np.ndarray) -> None:
    stdin = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()
    embed("-", "--input-format", "jsonl", "-o", "in.npy", cwd=here, stdin=stdin)
    close(np.load(here / "in.npy"), expected)
    embed("parts/*.parquet", "--text", "body", "--id", "key", "-o", "glob.npy", cwd=here)
    close(np.load(here / "glob.npy"), expected)
    assert np.load(here / "glob.ids.npy").tolist() == [f"k{n}" for n in range(40)]
    with sqlite3.connect(here / "rows.db") as database:
        database.execute("create table rows (id integer primary key, body text)")
        database.executemany("insert into rows (body) values (?)", [(text,) for text in TEXTS])
    database.close()
    query = "select id, body from rows where id > 10 order by id"
    embed("sqlite:///rows.db", "--query", query, "--text", "body", "-o", "sql.npy", cwd=here)
    close(np.load(here / "sql.npy"), expected[10:])
    assert np.load(here / "sql.ids.npy").tolist() == list(range(11, 41))


def test_a_folder_of_parts(here: Path, expected: np.ndarray) -> None:
    embed("rows.parquet", "--text", "body", "-o", "out/", "--shard-rows", "16", cwd=here)
    parts = ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert names(here / "out") == parts
    tables = [pq.read_table(here / "out" / part) for part in parts]
    assert [table.num_rows for table in tables] == [16, 16, 8]
    close(pa.concat_tables(tables)["embedding"].to_pylist(), expected)
    assert (here / "out.manifest.json").exists()


@pytest.mark.parametrize("output_type", ["float32", "float16", "int8", "uint8", "binary", "ubinary"])
def test_output_types(output_type: OutputType, here: Path, expected: np.ndarray) -> None:
    folder = hub.resolve(FAST, HubSettings.model_validate({}), progress=False).path  # the cache is another one
    env = {"LEMNI_CACHE_DIR": str(here / "cache")}
    asked = ("rows.parquet", "--text", "body", "-o", "out.npy", "--output-type", output_type)
    done = run("embed", *asked, "-m", str(folder), cwd=here, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    found, ranges = np.load(here / "out.npy"), None
    if output_type in ("int8", "uint8"):
        [kept] = (here / "cache" / "ranges").glob("*.npy")
        normalized = bool(np.allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-5))
        ranges = ranges_of(np.load(kept), normalize=normalized)
    codes = convert(expected, output_type, ranges)
    assert found.dtype == codes.dtype
    assert found.shape == codes.shape
    if output_type.startswith("float"):
        np.testing.assert_allclose(found, codes, atol=1e-6 if output_type == "float32" else 1e-3)
    else:  # a value at the edge of a step may fall on either side
        assert output_type.endswith("binary") or np.abs(found.astype(int) - codes.astype(int)).max() <= 1
        assert (found == codes).mean() > 0.98


def test_a_dry_run_writes_nothing(here: Path) -> None:
    pq.write_table(pa.table({"body": texts(3000)}), here / "many.parquet")
    before = names(here)
    asked = ("many.parquet", "--text", "body", "-o", "out.npy", "--dry-run", "--price-per-hour", "3600")
    told = dict(line.split(maxsplit=1) for line in embed(*asked, cwd=here).stdout.splitlines())
    assert names(here) == before
    assert list(told) == ["rows", "tokens", "speed", "time", "output", "cost"]
    assert told["rows"] == "3,000"  # a footer says it
    with lemni.load(FAST) as model:
        width = model.embed(["x"]).shape[1]
    size, unit = told["output"].removeprefix("about ").split()
    assert float(size) * {"MB": 1e6, "kB": 1e3}[unit] == pytest.approx(3000 * width * 4, rel=0.2)
    words = sum(len(text.split()) for text in texts(3000))
    assert 0.8 * words < int(told["tokens"].removeprefix("about ").replace(",", "")) < 3 * words
    assert told["speed"].endswith("(measured on 256 rows)")
    # At one a second, what it costs is how long it takes.
    rate = float(told["speed"].partition(" ")[0].replace(",", ""))
    assert float(told["cost"].removeprefix("about ")) == pytest.approx(3000 / rate, abs=0.01)


def test_rows_that_cannot_be_embedded(here: Path) -> None:
    rows: list[Any] = [{"id": n, "text": text} for n, text in enumerate(TEXTS)]
    rows[5]["text"], rows[7]["text"], rows[9] = None, " ", {"id": 9}
    (here / "bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = refused("bad.jsonl", "-o", "out.npy", "--fail-fast", cwd=here)
    assert line == "row 5 (id 5): is null"
    line = refused("bad.jsonl", "-o", "out.npy", "--max-rejects", "2", cwd=here)
    assert line.startswith("3 rows are rejected, and at most 2 may be; the last: row 9, ")
    assert not (here / "out.npy").exists()
    # The same rows are held against the rules of a command that goes on.
    assert refused("bad.jsonl", "-o", "out.npy", "--fail-fast", cwd=here) == "row 5 (id 5): is null"
    done = embed("bad.jsonl", "-o", "out.npy", "--max-rejects", "3", cwd=here)
    assert done.stderr == "lemni: note: 3 of 40 rows were rejected; see out.npy.rejects.jsonl\n"
    rejects = [json.loads(line) for line in (here / "out.npy.rejects.jsonl").read_text().splitlines()]
    assert [(one["row"], one["id"], one["reason"]) for one in rejects[:2]] == [(5, 5, "is null"), (7, 7, "is empty")]
    assert np.load(here / "out.npy").shape[0] == 37
    (here / "none.txt").write_text("\n\n")
    line = refused("none.txt", "-o", "none.npy", cwd=here)
    assert line == "none of the 2 rows could be embedded; the reasons are in none.npy.rejects.jsonl"


def test_what_cannot_be_read_leaves_nothing_and_what_is_empty_is_said(here: Path) -> None:
    (here / "bad.csv").write_text('body\n"not closed\n')
    before = names(here)
    line = refused("bad.csv", "--text", "body", "-o", "out.npy", cwd=here)
    assert line.endswith("bad.csv: a quote is opened in the row of line 2 and not closed")
    assert names(here) == before
    (here / "bad.csv").write_text('body\n"closed"\n')
    embed("bad.csv", "--text", "body", "-o", "out.npy", cwd=here)
    assert np.load(here / "out.npy").shape[0] == 1
    (here / "empty.txt").write_text("")
    done = embed("empty.txt", "-o", "none.npy", cwd=here)
    assert done.stderr == "lemni: note: there were no rows, and none.npy is empty\n"
    assert np.load(here / "none.npy").shape == (0, np.load(here / "out.npy").shape[1])


def on_a_terminal(*arguments: str, cwd: Path) -> str:
    """What the command shows on stderr when that is a terminal."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("4H", 40, 200, 0, 0))  # one of no width shows no bar
    process = subprocess.Popen(
        [*COMMAND, "embed", *arguments, "-m", FAST], cwd=cwd, env=environment(), stdout=subprocess.DEVNULL, stderr=its
    )
    os.close(its)
    shown = b""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if select.select([mine], [], [], 0.1)[0]:
            try:
                more = os.read(mine, 65536)
            except OSError:  # the other side is closed
                break
            if not more:
                break
            shown += more
    os.close(mine)
    assert process.wait(timeout=60) == 0, shown
    return shown.decode()


def test_what_a_terminal_is_told(here: Path) -> None:
    asked = ("rows.parquet", "--text", "body", "-o", "out.npy", "--price-per-hour", "2")
    shown = on_a_terminal(*asked, cwd=here)
    for part in ("40.0/40.0", " rows/s", "tokens/s", "cost 0."):
        assert part in shown
    last = shown.splitlines()[-1]
    assert last.startswith("40 rows in out.npy")
    assert f"model {FAST})" in last
    stamp = (here / "out.npy").stat().st_mtime_ns
    assert "out.npy was complete already: 40 rows; --overwrite makes it anew" in on_a_terminal(*asked, cwd=here)
    assert (here / "out.npy").stat().st_mtime_ns == stamp
    assert "40 rows in out.npy" in on_a_terminal(*asked, "--overwrite", cwd=here)
    assert (here / "out.npy").stat().st_mtime_ns != stamp


def test_progress_without_a_terminal(here: Path) -> None:
    assert embed("rows.parquet", "--text", "body", "-o", "a.npy", cwd=here).stderr == ""
    shown = embed("rows.parquet", "--text", "body", "-o", "b.npy", "--progress", cwd=here).stderr
    assert "40.0/40.0" in shown
    assert "tokens/s" in shown


def test_ctrl_c_and_again(minilm: ModelFiles, tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("".join(f"{text}\n" for text in texts(400)))
    asked = ("many.txt", "-m", str(minilm.path), "--shard-rows", "16", "-o")
    command = [*COMMAND, "embed", *asked, "v.npy"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE)
    shards = tmp_path / "v.npy.lemni" / "shards"
    until = time.monotonic() + 60
    while len(list(shards.glob("*.json"))) < 2 and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (130, b"")
    assert names(tmp_path) == ["many.txt", "v.npy.lemni"]
    done = len(list(shards.glob("*.json")))
    assert 2 <= done < 25
    assert run("embed", *asked, "v.npy", cwd=tmp_path).stderr == ""
    assert json.loads((tmp_path / "v.npy.manifest.json").read_text())["summary"]["written"] == 400
    run("embed", *asked, "whole.npy", cwd=tmp_path)
    assert (tmp_path / "v.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_into_a_store(here: Path, expected: np.ndarray) -> None:
    from lemni.stores import open_store

    address = "sqlite-vec:./store.db?collection=docs"
    asked = ("rows.parquet", "--text", "body", "--id", "key", "-o", address)
    embed(*asked, cwd=here)
    store = open_store(f"sqlite-vec:{here}/store.db?collection=docs")
    try:
        pages = list(store.pages(1000, vectors=True))
    finally:
        store.close()
    found = {
        one: (text, carried, vector)
        for page in pages
        for one, text, carried, vector in zip(page.ids, page.texts, page.metadata, page.vectors, strict=True)
    }
    assert sorted(found) == sorted(f"k{n}" for n in range(40))
    for number in range(40):
        text, carried, vector = found[f"k{number}"]
        assert (text, carried) == (TEXTS[number], {"year": YEARS[number], "note": "n"})
        close(vector, expected[number])
    assert sum("-docs-" in name and name.endswith(".manifest.json") for name in names(here)) == 1


def test_a_store_that_cannot_be_opened_leaves_nothing(here: Path) -> None:
    before = names(here)
    assert "collection" in refused("rows.parquet", "--text", "body", "-o", "chroma:./data", cwd=here)
    assert names(here) == before


@pytest.mark.torch
def test_sparse_vectors_and_vectors_of_tokens(tmp_path: Path) -> None:
    from sentence_transformers import MultiVectorEncoder

    from tests.tasks.sparse_models import splade
    from tests.tasks.test_colbert import save_encoder

    given = ["the cat", "some words and more"]
    (tmp_path / "some.txt").write_text("\n".join(given))
    sparse = splade(tmp_path / "sparse").encode(given, convert_to_sparse_tensor=False).numpy()
    done = run("embed", "some.txt", "-m", "./sparse", "-o", "s.npz", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    back = np.load(tmp_path / "s.npz")
    dense = np.zeros_like(sparse)
    dense[np.repeat([0, 1], back["lengths"]), back["indices"]] = back["values"]
    np.testing.assert_allclose(dense, sparse, atol=1e-5)
    line = error_line(run("embed", "some.txt", "-m", "./sparse", "-o", "s.npy", cwd=tmp_path))
    assert "sparse" in line
    assert "npz" in line
    assert not (tmp_path / "s.npy.lemni").exists()
    line = error_line(run("embed", "some.txt", "-m", "./sparse", "-o", "i.npz", "--output-type", "int8", cwd=tmp_path))
    assert line == "the output type int8 is for dense vectors, which sparse does not give here"
    MultiVectorEncoder(str(save_encoder(tmp_path / "base")), device="cpu").save(str(tmp_path / "tokens"))
    matrices = MultiVectorEncoder(str(tmp_path / "tokens"), device="cpu").encode(given)
    run("embed", "some.txt", "-m", "./tokens", "-o", "m.npz", cwd=tmp_path)
    back = np.load(tmp_path / "m.npz")
    assert back["lengths"].tolist() == [len(matrix) for matrix in matrices]
    np.testing.assert_allclose(back["vectors"], np.concatenate(matrices), atol=1e-5)


@pytest.mark.torch
def test_a_model_that_does_not_embed(tmp_path: Path) -> None:
    from tests.tasks.classifiers import save_classifier

    save_classifier(tmp_path / "model", "bert", labels=3)
    (tmp_path / "some.txt").write_text("x\n")
    line = error_line(run("embed", "some.txt", "-o", "v.npy", "-m", "./model", cwd=tmp_path))
    assert line.startswith("model does not do embeddings; it does classification. Name an embedding model with --model")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("rows.csv -o o.npy", "rows.csv: has no column 'text'; it has 'key', 'body', 'year'"),
        ("rows.csv --text body --id nr -o o.npy", "has no column 'nr'; it has 'key', 'body', 'year'"),
        ("rows.csv --text body --carry nr -o o.npy", "has no column 'nr'; it has 'key', 'body', 'year'"),
        ("rows.csv --text body -o o.csv", "o.csv: the name must end in one of .npy, .npz, .jsonl, "),
        ("rows.csv --text body -o out", "out: the name must end in one of .npy, "),
        ("rows.csv --text body -o parts", "parts: is a folder; a folder of files needs a format: npy, "),
        ("rows.csv --text body -o o.npy --format parquet", "o.npy: is named as npy, but the format is to be parquet"),
        ("rows.csv --text body -o o.npy --format xml", "no output format is called 'xml'; known: npy, "),
        ("rows.csv --text body -o o.npy --input-format xml", "xml"),
        ("rows.csv --text body -o nosuch://x", "nosuch://: cannot be written to; an output is a path or a store: "),
        ("rows.csv rows.parquet --text body -o o.npy", "an input is of one format"),
        ("hello rows.csv -o o.npy", "'hello' is no file, but other arguments are"),
        ("rows.tsv -o o.npy", "rows.tsv: no such file"),
        ("none/*.csv -o o.npy", "none/*.csv: no such file"),
        (". --text body -o ../o.npy", "has files of several formats (3 of parquet, 1 of csv)"),
        ("parts --text body -o parts/o.npy", "would be in the folder that is the input"),
        ("rows.csv --text body -o rows.csv --format jsonl", "rows.csv"),
        ("sqlite:///x.db --text body -o o.npy", "sqlite:///x.db: a database needs a query (--query)"),
        ("rows.csv --query x --text body -o o.npy", "a query is asked of one database, by its URL, not of rows.csv"),
        ("rows.csv --text body --images -o o.npy", "takes no images; it takes text"),
        ("rows.csv --text body --task sparse -o o.npz", "does not do sparse embeddings; it does embeddings"),
        ("rows.csv --dry-run", "--dry-run is for files that are embedded with -o"),
        ("rows.csv --text body --vector-column text -o o.parquet", "the vectors cannot be called 'text'"),
    ],
)
def test_mistakes(arguments: str, message: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, for there are many; what makes a line of an error is the same."""
    from click.testing import CliRunner

    from lemni.cli.app import app

    monkeypatch.chdir(here)
    for name in [name for name in os.environ if name.startswith("LEMNI_")]:
        monkeypatch.delenv(name)
    before = names(here), names(here / "parts")
    done = CliRunner().invoke(app, ["embed", *arguments.split(), "-m", FAST])
    assert done.exit_code == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("lemni: error: ")
    assert message in line
    assert (names(here), names(here / "parts")) == before


def test_what_the_disk_refuses_is_one_line(here: Path) -> None:
    (here / "file").write_text("")
    assert refused("rows.csv", "--text", "body", "-o", "file/o.npy", cwd=here) == "file: there is no such folder"
    line = refused("rows.csv", "--text", "body", "-o", "/proc/o.npy", cwd=here)
    assert line.startswith("/proc/o.npy")
    # A disk that is full in the middle: no file of this process may be longer than 1 KiB.
    limited = ["bash", "-c", 'ulimit -f 1; exec "$@"', "bash", *COMMAND]
    asked = ["embed", "rows.parquet", "--text", "body", "-o", "o.npy", "-m", FAST]
    done: Any = subprocess.run([*limited, *asked], cwd=here, env=environment(), capture_output=True, check=False)
    assert done.returncode == 2, done
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("lemni: error: ")
    assert "File too large" in line
    assert not (here / "o.npy").exists()
    embed("rows.parquet", "--text", "body", "-o", "o.npy", cwd=here)
    assert np.load(here / "o.npy").shape[0] == 40
