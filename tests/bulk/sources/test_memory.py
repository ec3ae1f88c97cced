"""Inputs of any size in bounded memory: what a process has grown by when it has read a million short rows."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 1_000_000  # as Python objects over 200 MB; a shard of 2,000 is half of one
READ = """
import sys
import lemni.bulk.sources.delimited, lemni.bulk.sources.json_list, lemni.bulk.sources.places, lemni.bulk.sources.source
from lemni.bulk.sources import Columns, open_source
if sys.argv[1] == "pyarrow":
    import pyarrow, pyarrow.parquet
else:
    import ijson
    lemni.bulk.sources.json_list.WHOLE_BYTES = 1 << 20  # over which it streams
def peak():  # not getrusage's, which a child has from its parent
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1])
before = peak()
for path in sys.argv[2:]:
    rows = sum(len(shard.load()) for shard in open_source([path], Columns()).shards(2000))
    print(path.rpartition("/")[2], rows)
print("KiB", peak() - before)
"""


def grown(kind: str, paths: Iterable[Path]) -> tuple[dict[str, int], int]:
    """Rows of each file, and by how many KiB the process grew at most."""
    command = [sys.executable, "-c", READ, kind, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = dict(line.split() for line in done.stdout.splitlines())
    size = int(found.pop("KiB"))
    return {name: int(rows) for name, rows in found.items()}, size


def test_text_of_a_million_rows(tmp_path: Path) -> None:
    numbers = range(ROWS)
    part = [json.dumps({"id": at, "text": f"row {at}"}) for at in range(ROWS // 5)]
    (tmp_path / "a.txt").write_text("".join(f"row number {at}\n" for at in numbers))
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress((tmp_path / "a.txt").read_bytes()[: 1 << 22], 1))
    (tmp_path / "a.jsonl").write_text("\n".join(part))
    (tmp_path / "a.json").write_text(f"[{', '.join(part)}]")
    (tmp_path / "a.csv").write_text("id,text\n" + "".join(f'{at},"row\n{at}"\n' for at in range(ROWS // 5)))
    rows, size = grown("text", sorted(tmp_path.iterdir()))
    packed = (tmp_path / "a.txt").read_bytes()[: 1 << 22].count(b"\n") + 1
    assert rows == {
        "a.csv": ROWS // 5,
        "a.json": ROWS // 5,
        "a.jsonl": ROWS // 5,
        "a.txt": ROWS,
        "a.txt.gz": packed,
    }
    assert size < 24 << 10


def test_a_table_of_half_a_million_rows(tmp_path: Path) -> None:
    """In one row group and one record batch, the worst that there is: as Python objects each has over 200 MB."""
    rows = ROWS // 2
    table = pa.table({"id": range(rows), "text": [f"row {at} {'x' * 200}" for at in range(rows)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=rows, compression="none", use_dictionary=False)
    pq.write_table(table, tmp_path / "b.parquet", row_group_size=10_000, compression="none", use_dictionary=False)
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)
    mapped = (
        tmp_path / "a.arrow"
    ).stat().st_size >> 10  # pages of the file that the system keeps and takes as it likes
    assert mapped > 100 << 10
    found, size = grown("pyarrow", [tmp_path / "a.parquet", tmp_path / "b.parquet"])
    assert found == {"a.parquet": rows, "b.parquet": rows}
    assert size < 130 << 10
    found, size = grown("pyarrow", [tmp_path / "a.arrow"])
    assert found == {"a.arrow": rows}
    assert size - mapped < 60 << 10
