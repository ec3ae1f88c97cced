"""Which place and format make which output, and what an output is asked before it is written."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from lemni.bulk.outputs import ENDINGS, FORMATS, open_output
from lemni.errors import InvalidRequest, MissingExtra, StoreError
from tests.bulk.outputs.made import dense, rows, vectors


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_ending_says_the_format(tmp_path: Path, ending: str) -> None:
    output = open_output(f"{tmp_path}/Some.Name{ending.upper()}")
    assert output.identity() == {
        "format": ENDINGS[ending],
        "name": f"Some.Name{ending.upper()}",
        "vector_column": "embedding",
    }
    assert not output.direct
    assert output.files()[0] == tmp_path / f"Some.Name{ending.upper()}"
    assert output.name == f"{tmp_path}/Some.Name{ending.upper()}"


@pytest.mark.parametrize("format", FORMATS)
def test_every_output_may_be_used_by_another_process(tmp_path: Path, format: str) -> None:
    endings = {"numpy": ".npy", "chroma": "", "pinecone": ".json"}
    output = open_output(f"{tmp_path}/v{endings.get(format, '')}", format=format)
    other = pickle.loads(pickle.dumps(output))
    output.prepare(dense())
    other.write(tmp_path / "part", rows(0, 2), vectors(2, dense()), dense())
    files = output.assemble([tmp_path / "part"], dense())
    assert set(files) <= set(other.files())
    assert all(path.exists() for path in files)
    assert other.identity() == output.identity()
    folder = open_output(f"{tmp_path}/folder/")
    assert pickle.loads(pickle.dumps(folder)).identity() == folder.identity()


@pytest.mark.parametrize(
    ("place", "how", "message"),
    [
        ("v.txt", {}, r"one of \.npy, .*\.safetensors, or a format"),
        ("v", {}, r"one of \.npy"),
        ("", {}, "needs a place"),
        ("", {"format": "npy"}, "needs a place"),
        ("v.npy", {"format": "parquet"}, "named as npy, but the format is to be parquet"),
        ("v.parquet", {"format": "numpy"}, "named as parquet"),
        ("v.npy", {"format": "csv"}, "'csv'; known: npy, .*pinecone"),
        ("v.txt", {"format": "pinecone"}, r"\.json, \.jsonl, \.parquet, or in a slash"),
        ("out/", {"format": "chromas"}, "known"),
        ("s3://bucket/v.npy", {}, "s3://: cannot be written to.*chroma"),
        ("v.npy", {"vector_column": "text"}, "--vector-column"),
        ("qdrant://host?collection=x", {"format": "npy"}, "a vector store has no format"),
    ],
)
def test_places_that_are_refused(place: str, how: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        open_output(place, **how)


def test_a_slash_makes_a_folder(tmp_path: Path) -> None:
    for place, format in (("out/", "parquet"), ("out.npy/", "npy"), ("out.d/", "parquet")):
        assert open_output(f"{tmp_path}/{place}").identity() == {
            "format": format,
            "name": place[:-1],
            "vector_column": "embedding",
            "folder": True,
        }


def test_a_folder_that_is_there_needs_a_format(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="is a folder"):
        open_output(str(tmp_path))
    assert open_output(str(tmp_path), format="jsonl").identity()["folder"] is True


def test_a_stores_password_stays_where_it_is() -> None:
    output = open_output("qdrant://user:secret@host:1?collection=docs")
    assert output.direct
    assert output.files() == []
    assert "secret" not in output.name + str(output.identity()) + repr(output)
    with pytest.raises(StoreError, match="no address") as failure:
        open_output("qdrant://user:secret@host:port?collection=docs")
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize(
    ("package", "ending", "extra"),
    [("pyarrow", "parquet", "parquet"), ("pyarrow", "arrow", "parquet"), ("lance", "lance", "lance")],
)
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, ending: str, extra: str
) -> None:
    for name in list(sys.modules):
        if name == package or name.startswith((f"{package}.", "lemni.bulk.outputs.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"lemni\[{extra}\]"):
        open_output(f"{tmp_path}/v.{ending}")


def test_arrays_and_lines_need_no_optional_package(tmp_path: Path) -> None:
    program = f"""
import sys
for name in ("pyarrow", "lance", "safetensors", "pandas", "chromadb"):
    sys.modules[name] = None
import numpy as np
from lemni.bulk.outputs import Made, open_output
from lemni.bulk.rows import Rows
made = Made("embed", 4, "float32", "float32", "cosine", "m")
for place, format in [("v.npy", None), ("v.npz", None), ("v.jsonl", None), ("v.safetensors", None), ("n.npy", "numpy"),
                      ("c", "chroma"), ("p.json", "pinecone"), ("p.jsonl", "pinecone"), ("f/", "npz")]:
    output = open_output({str(tmp_path)!r} + "/" + place, format=format)
    output.prepare(made)
    from pathlib import Path
    part = Path({str(tmp_path)!r}) / "part"
    output.write(part, Rows(0, ["a"], ["x"], ["x"], [{{"year": 1}}]), np.ones((1, 4), np.float32), made)
    assert output.assemble([part], made)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
