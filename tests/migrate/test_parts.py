"""Names, sets of ids, neighbours and judgements, each against a plain way to the same answer."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from lemni.errors import ConfigError
from lemni.migrate.connection import Connection
from lemni.migrate.ids import IdSet, differences
from lemni.migrate.judged import ndcg, read_judged, recall
from lemni.migrate.neighbours import Search
from lemni.migrate.places import new_name, places
from lemni.migrate.plots import pictures
from lemni.migrate.report import page
from lemni.migrate.source import shards_of
from lemni.migrate.verify import cosine
from lemni.quantize import quality
from lemni.stores.base import Metric, Page
from lemni.types import SparseVector


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("BAAI/bge-small-en-v1.5", "docs__bge_small_en_v1_5"),
        ("./models/My Model/", "docs__my_model"),
        ("pypi:tokenlearn-static-model==0.1.1#static_model/model", "docs__tokenlearn_static_model"),
        ("org/" + "a" * 90, "docs__" + "a" * 57),
    ],
)
def test_the_new_collections_name(model: str, expected: str) -> None:
    assert new_name("docs", model, None) == expected
    assert len(new_name("docs", model, 256).encode()) <= 63
    assert new_name("docs", "m", 256) == "docs__m_256"


def test_what_is_switched() -> None:
    def found(source: str, target: str | None, alias: str | None = None) -> str | None:
        return places(source, target, "m", dimensions=None, alias=alias, folder=None).alias

    assert found("qdrant:f?collection=docs", None) == "docs"
    assert found("qdrant:f?collection=docs", "qdrant:f?collection=new") == "docs"
    assert found("qdrant:f?collection=docs", "qdrant:f?collection=new", "live") == "live"
    assert found("qdrant:f?collection=docs", "qdrant:g?collection=new") is None
    assert found("rows.jsonl", "qdrant:g?collection=new", "live") == "live"


def test_the_folders_name_has_the_stores() -> None:
    def found(source: str, target: str | None = None) -> str:
        return str(places(source, target, "m", dimensions=None, alias=None, folder=None).folder)

    assert found("sqlite-vec:old/my app.db?collection=docs") == "migrate-sqlite-vec-my_app.db-docs-to-docs__m"
    assert found("sqlite-vec:other.db?collection=docs") == "migrate-sqlite-vec-other.db-docs-to-docs__m"
    assert found("chroma:./data/?collection=docs") == "migrate-chroma-data-docs-to-docs__m"
    assert found("qdrant://u:secret@db:6333?collection=docs") == "migrate-qdrant-db_6333-docs-to-docs__m"
    assert (
        found("faiss:a?collection=docs", "postgresql://h/app?collection=new")
        == "migrate-faiss-a-docs-to-postgresql-h-app-new"
    )
    assert found("rows.jsonl", "faiss:a?collection=new") == "migrate-rows-to-faiss-a-new"


def test_sets_of_ids_differ_by_name_and_by_type() -> None:
    names: list[str | int] = [f"id-{number}" for number in range(20_000)]
    names += list(range(100))
    shuffled = names[:]
    random.Random(1).shuffle(shuffled)

    def of(ids: list[str | int]) -> IdSet:
        made = IdSet()
        for start in range(0, len(ids), 777):
            made.add(ids[start : start + 777])
        return made

    assert not of(names).unequal(of(shuffled))
    assert len(of(names)) == 20_100
    other = [name for name in shuffled if name not in ("id-5", 7)] + ["7", "id-8"]  # as many, one of them twice
    assert len(of(other)) == len(of(names))
    found = differences(of(names), of(other), lambda: iter(names), lambda: iter(other))
    assert (set(found.missing), set(found.extra), found.complete) == ({"id-5", 7}, {"7", "id-8"}, True)


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_exact_search_in_pages_is_exact_search(metric: Metric) -> None:
    vectors = np.random.default_rng(0).normal(size=(500, 16))
    asked = [3, 77, 499]
    search = Search(asked, vectors[asked], metric, 7)
    for start in range(0, 500, 64):
        numbers = list(range(start, min(500, start + 64)))
        search.add(Page(list(numbers), [None] * len(numbers), [{}] * len(numbers), vectors[numbers]))  # type: ignore[arg-type]
    name = {"l2": "euclidean"}.get(metric, metric)
    scores = quality.similarities(vectors[asked], vectors, name)
    scores[range(3), asked] = -np.inf
    assert search.found().ids == np.argsort(-scores, axis=1)[:, :7].tolist()


def test_judgements_of_each_format(tmp_path: Path) -> None:
    beir, trec = tmp_path / "test.tsv", tmp_path / "qrels.txt"
    (tmp_path / "q.jsonl").write_text(
        '{"_id": "a", "text": "one"}\n{"_id": "b", "text": "two"}\n{"_id": "c", "text": ""}'
    )
    (tmp_path / "q.tsv").write_text("a\tone\nb\ttwo\n")
    beir.write_text("query-id\tcorpus-id\tscore\na\td1\t2\na\td2\t0\nb\td3\t1\n")
    trec.write_text("a 0 d1 2\na 0 d2 0\nb 0 d3 1\n")
    for queries in ("q.jsonl", "q.tsv"):
        for qrels in (beir, trec):
            found = read_judged(tmp_path / queries, qrels)
            assert found.queries == ["one", "two"]
            assert found.relevance == [{"d1": 2.0}, {"d3": 1.0}]
    (tmp_path / "cran.qry").write_text(".I 001\n.W\nfirst\nquery\n.I 004\n.W\nsecond\n")
    (tmp_path / "cranqrel").write_text("1 184 2\n1 29 -1\n2 12 4\n2 13 1\n")
    found = read_judged(tmp_path / "cran.qry", tmp_path / "cranqrel")
    assert found.queries == ["first query", "second"]
    assert found.relevance == [{"184": 3.0}, {"12": 1.0, "13": 4.0}]
    trec.write_text("x 0 d1 1\n")
    with pytest.raises(ConfigError, match="judges none"):
        read_judged(tmp_path / "q.tsv", trec)


def test_gains_are_those_of_a_matrix() -> None:
    dice = np.random.default_rng(3)
    scores = dice.normal(size=(20, 40))
    judged = [{int(at): float(dice.integers(1, 4)) for at in dice.choice(40, 5, replace=False)} for _ in range(20)]
    ranking = [[str(at) for at in row] for row in np.argsort(-scores, axis=1)[:, :10]]
    named = [{str(at): value for at, value in one.items()} for one in judged]
    assert ndcg(ranking, named) == pytest.approx(quality.ndcg(scores, judged))
    shares = [len({int(name) for name in row[:5]} & {*one}) / 5 for row, one in zip(ranking, judged, strict=True)]
    assert recall(ranking, named, 5) == pytest.approx(np.mean(shares))


def test_cosines_of_every_kind() -> None:
    one, two = np.array([3.0, 4.0]), np.array([4.0, 3.0])
    assert cosine(one, two) == pytest.approx(24 / 25)
    assert cosine(one, np.array([1.0])) == 0
    assert cosine(np.zeros(2), np.zeros(2)) == 1
    assert cosine(np.zeros(2), one) == 0
    assert cosine(np.stack([one, one]), np.stack([one, two])) == pytest.approx(24 / 25)
    sparse = [
        SparseVector(np.array(at, np.int32), np.array(values, np.float32))
        for at, values in (([1, 5], [3, 4]), ([5, 9], [4, 3]))
    ]
    assert cosine(*sparse) == pytest.approx(16 / 25)


def test_shards_do_not_depend_on_pages() -> None:
    def pages(*sizes: int):  # type: ignore[no-untyped-def]
        number = 0
        for size in sizes:
            some = range(number, number + size)
            yield Page(list(some), [str(at) for at in some], [{"at": at} for at in some])
            number += size

    for sizes in ((10, 10, 3), (23,), (1,) * 23):
        shards = list(shards_of(pages(*sizes), 7))
        assert [len(shard.rows) for shard in shards] == [7, 7, 7, 2]
        assert [shard.rows.first for shard in shards] == [0, 7, 14, 21]
        assert shards[2].rows.metadata[1] == {"at": 15}


def test_a_page_is_escaped_and_has_its_pictures() -> None:
    drawn = pictures({"cosines": [1.0, 0.99], "overlap": []})
    assert drawn.startswith("<svg")
    assert pictures({}) == ""
    shown = page(
        "# a <b>\n\n| x | y |\n| --- | --- |\n| 1 \\| 2 | `<i>` |\n\n## Verification\n\n- one\n\n```\n<&>\n```\n", drawn
    )
    for part in (
        "<h1>a &lt;b&gt;</h1>",
        "<td>1 | 2</td><td><code>&lt;i&gt;</code></td>",
        "<li>one</li>",
        "&lt;&amp;&gt;",
    ):
        assert part in shown
    assert drawn in shown


def test_no_password_comes_out() -> None:
    found = places("postgresql://app:secret@db/x?collection=docs", None, "m", dimensions=None, alias=None, folder=None)
    assert found.source is not None
    for said in (found.source_name, str(found.target), str(found.folder), Connection(found.source).name, repr(found)):
        assert "secret" not in said
    assert found.target.password == "secret"
