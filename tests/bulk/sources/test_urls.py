"""Inputs at URLs: an S3 server (moto's) and a web server on this machine."""

from __future__ import annotations

import functools
import gzip
import http.server
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from lemni.bulk.sources import Columns, open_source
from lemni.errors import InvalidRequest, MissingExtra
from lemni.types import Image
from tests.bulk.sources.reading import Row, read

# moto's and aiohttp's sockets are closed when they are collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROWS = [{"id": f"k{at}", "text": f"ü{at}", "n": at} for at in range(30)]
WANTED = [Row(row["id"], row["text"], row["text"], {"n": row["n"]}) for row in ROWS]  # type: ignore[arg-type]


def files(folder: Path) -> None:
    """The same rows in every format."""
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, folder / "a.parquet", row_group_size=8)
    feather.write_feather(table, folder / "a.feather", chunksize=8)
    with pa.OSFile(str(folder / "a.arrow"), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=8)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    (folder / "a.jsonl").write_text(lines)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "a.json").write_text(json.dumps(ROWS))
    (folder / "a.csv").write_text("id,text,n\n" + "".join(f"{row['id']},{row['text']},{row['n']}\n" for row in ROWS))


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    folder = tmp_path_factory.mktemp("s3")
    files(folder)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket="lemni")
        for path in folder.iterdir():
            client.put_object(Bucket="lemni", Key=f"in/{path.name}", Body=path.read_bytes())
        for name in ("1.png", "2.png"):
            client.put_object(Bucket="lemni", Key=f"images/{name}", Body=name.encode())
        s3fs.S3FileSystem.clear_instance_cache()
        yield "s3://lemni"
        s3fs.S3FileSystem.clear_instance_cache()
        client.close()
    server.stop()


def put(bucket: str, key: str, data: bytes) -> None:
    import boto3

    client = boto3.client("s3")
    client.put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=data)
    client.close()


@pytest.mark.parametrize("name", ["a.parquet", "a.feather", "a.arrow", "a.jsonl", "b.jsonl.gz", "a.json", "a.csv"])
def test_every_format_in_a_bucket(bucket: str, name: str) -> None:
    source = open_source([f"{bucket}/in/{name}"], Columns())
    assert source.random_access == (name in ("a.parquet", "a.feather", "a.jsonl", "a.csv"))
    (file,) = source.identity()["files"]
    assert file["path"] == f"{bucket}/in/{name}"
    assert file["stamp"]
    wanted = [row._replace(metadata={"n": str(row.metadata["n"])}) for row in WANTED] if name == "a.csv" else WANTED
    for rows in (7, 100):
        assert read(f"{bucket}/in/{name}", rows=rows) == wanted


def test_globs_and_folders_in_a_bucket(bucket: str) -> None:
    assert [row.text for row in read(f"{bucket}/in/*.jsonl*")] == [row.text for row in WANTED] * 2
    with pytest.raises(InvalidRequest, match="several formats"):
        read(f"{bucket}/in")
    assert read(f"{bucket}/in/", format="parquet") == WANTED
    for place, message in (
        ("in/nothing.txt", r"s3://lemni/in/nothing\.txt: no such file"),
        ("in/*.txt", "no file matches"),
        ("none/", "no such file or folder"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            read(f"{bucket}/{place}")


def test_images_in_a_bucket(bucket: str) -> None:
    columns = Columns("image", kind="image")
    names = [f"{bucket}/images/{at}.png" for at in (1, 2)]
    assert read(f"{bucket}/images", columns) == [Row(name, Image(name[-5:].encode()), name, {}) for name in names]
    put(bucket, "images/list.csv", b"image\n2.png\nnone.png\n" + names[0].encode())
    found = read(f"{bucket}/images/list.csv", columns)
    assert [found[0].item, found[2].item] == [Image(b"2.png"), Image(b"1.png")]
    assert found[1].item.reason == "s3://lemni/images/none.png: no such file"


def test_a_dataset_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    files(tmp_path)
    put(bucket, "saved/state.json", b'{"_data_files": [{"filename": "data-0.arrow"}]}')
    put(bucket, "saved/data-0.arrow", (tmp_path / "a.arrow").read_bytes())
    assert read(f"{bucket}/saved") == WANTED


def test_an_object_that_changes_is_refused(bucket: str) -> None:
    put(bucket, "changes.txt", b"a\nb\n")
    source = open_source([f"{bucket}/changes.txt"], Columns())
    shards = list(source.shards(1))
    assert shards[1].load().texts == ["b"]
    put(bucket, "changes.txt", b"a\nc\n")
    with pytest.raises(InvalidRequest, match=r"s3://lemni/changes\.txt: has changed"):
        shards[1].load()
    assert open_source([f"{bucket}/changes.txt"], Columns()).identity() != source.identity()


def test_another_process_loads_from_a_bucket(bucket: str) -> None:
    shards = list(open_source([f"{bucket}/in/a.parquet"], Columns()).shards(10))
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).load().ids)"
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(shards[2]), capture_output=True, check=True)
    assert done.stdout.decode().strip() == str([row.id for row in WANTED[20:]])


def test_without_s3fs_pyarrow_reads_buckets(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    for name in ("a.jsonl", "a.parquet", "*.json"):
        assert read(f"{bucket}/in/{name}", rows=9) == WANTED
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(MissingExtra, match="adlfs"):
        read("az://container/a.txt")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtra, match=r"lemni\[bulk\]"):
        read(f"{bucket}/in/a.jsonl")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def test_a_web_server_that_sends_whole_files(tmp_path: Path) -> None:
    files(tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        at = f"http://127.0.0.1:{server.server_port}"
        for name in ("a.jsonl", "b.jsonl.gz", "a.json"):
            assert read(f"{at}/{name}?token=secret", rows=9) == WANTED
        source = open_source([f"{at}/a.csv?token=secret"], Columns())
        assert not source.random_access
        assert source.name == f"{at}/a.csv"
        assert "secret" not in json.dumps(source.identity())
        with pytest.raises(InvalidRequest) as caught:
            read(f"{at}/none.jsonl?token=secret")
        assert "secret" not in caught.value.message
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
