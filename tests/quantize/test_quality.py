"""The measures against scipy and scikit-learn, and the files that they are taken from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import rankdata, spearmanr
from sklearn.metrics import ndcg_score

from lemni.errors import ConfigError
from lemni.quantize.data import read_collection, read_pairs
from lemni.quantize.quality import cosines, ndcg, ranks, similarities, spearman
from tests.shared import STSB, stsb


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=40))
def test_ranks_and_spearman_with_many_ties(pairs: list[tuple[int, int]]) -> None:
    one, two = np.array(pairs, dtype=float).T
    np.testing.assert_allclose(ranks(one), rankdata(one))
    if len(set(one)) > 1 and len(set(two)) > 1:
        assert spearman(one, two) == pytest.approx(spearmanr(one, two).statistic)
    else:
        assert np.isnan(spearman(one, two))


def test_ndcg() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(size=(6, 50))
    relevance = random.integers(0, 4, size=(6, 50)) * (random.random((6, 50)) < 0.3)
    judgments = [{place: float(value) for place, value in enumerate(row) if value} for row in relevance]
    assert ndcg(scores, judgments) == pytest.approx(ndcg_score(relevance, scores, k=10))


def test_similarities_and_cosines() -> None:
    random = np.random.default_rng(0)
    one, two = random.normal(size=(4, 8)), random.normal(size=(5, 8))
    np.testing.assert_allclose(similarities(one, two, "cosine"), 1 - cdist(one, two, "cosine"))
    np.testing.assert_allclose(similarities(one, two, "dot"), one @ two.T)
    np.testing.assert_allclose(similarities(one, two, "euclidean"), -cdist(one, two))
    np.testing.assert_allclose(similarities(one, two, "manhattan"), -cdist(one, two, "cityblock"))
    np.testing.assert_allclose(cosines(one, two[:4]), 1 - np.diag(cdist(one, two[:4], "cosine")))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("named.csv", 'score,sentence1,sentence2\n4.5,"A cat, asleep.",A dog is running.\n0,One,Two\n'),
        ("bare.csv", '"A cat, asleep.",A dog is running.,4.5\nOne,Two,0\n'),
        (
            "stsb.tsv",
            "news\tfile-1\t2015\t31\t4.5\tA cat, asleep.\tA dog is running.\nnews\tfile\t2015\t30\t0\tOne\tTwo\n",
        ),
    ],
)
def test_pairs_by_name_or_by_content(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    found = read_pairs(path)
    assert (found.one, found.two, found.scores) == (["A cat, asleep.", "One"], ["A dog is running.", "Two"], [4.5, 0])


def test_pairs_of_the_benchmark() -> None:
    if STSB.exists():
        found = read_pairs(STSB)
        assert (found.one, found.two, found.scores) == stsb()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n", "needs lines with two sentences and a score"),
        ("a,b,c\n", "needs columns of two sentences and a score"),
        ("sentence1,sentence2,score\na,b,1\n", "the scores in column 3 are all alike"),
        ("sentence1,sentence2,score\na,b,x\n", "line 2 has no score in column 3"),
    ],
)
def test_broken_pairs(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "pairs.csv").write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_pairs(tmp_path / "pairs.csv")


def test_a_collection_as_beir_has_it(tmp_path: Path) -> None:
    rows = [{"_id": "d1", "title": "Cats", "text": "sleep"}, {"_id": "d2", "title": "", "text": "Dogs run"}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    queries = [{"_id": "q0", "text": "unjudged"}, {"_id": "q1", "text": "who sleeps"}]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in queries))
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq0\td2\t1\n")
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq1\tgone\t1\n")
    found = read_collection(tmp_path)
    assert found.documents == ["Cats sleep", "Dogs run"]
    assert (found.queries, found.judgments) == (["who sleeps"], [{0: 2.0}])


def test_a_collection_as_cranfield_has_it(tmp_path: Path) -> None:
    (tmp_path / "cran.all.1400").write_text(".I 1\n.T\nwing\n.A\nme\n.B\nx\n.W\nwing\nflow\n.I 2\n.T\na\n.W\nheat\n")
    (tmp_path / "cran.qry").write_text(".I 001\n.W\nwhat is\nflow\n.I 004\n.W\nwhat is heat\n")
    (tmp_path / "cranqrel").write_text("1 1 2\n1 2 -1\n2 2 1\n")
    found = read_collection(tmp_path)
    assert found.documents == ["wing flow", "heat"]
    assert found.queries == ["what is flow", "what is heat"]
    assert found.judgments == [{0: 3}, {1: 4}]


def test_no_collection(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs corpus\.jsonl, queries\.jsonl and qrels"):
        read_collection(tmp_path)
