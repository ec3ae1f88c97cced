"""Retrieval on Cranfield: what is read, nDCG by scikit-learn's, and the program on a few documents."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from examples.late_interaction_cranfield import BESIDE, WHERE, ndcg, read
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import maxsim
from sklearn.metrics import ndcg_score
from torch.nn.functional import normalize

from lemni.hub import ModelFiles
from tests.tasks.test_colbert import stanford

PROGRAM = Path(__file__).parents[2] / "examples" / "late_interaction_cranfield.py"
ROWS = (
    *("one vector, cosine", "MaxSim, float32", "MaxSim, pooled by 2", "MaxSim, pooled by 3"),
    *("MaxSim, int8", "MaxSim, binary", "MaxSim, pooled, binary"),
)
DOCUMENTS = """.I 1
.T
heat in plates
.A
somebody
.B
j. ae. scs. 25, 1958, 324.
.W
heat in plates .
  conduction of heat through composite slabs .
.I 2
.T
boundary layers
.A
.B
.W
the boundary layer on a flat plate in a slipstream .
.I 3
.T
cats
.A
.B
.W
cats sleep on warm sofas and purr .
"""
QUERIES = """.I 001
.W
how does heat flow
in composite slabs .
.I 004
.W
where do cats sleep .
.I 009
.W
a query that nothing answers .
"""
JUDGMENTS = "1 1 1 \n1 2 4 \n1 3 -1\n2 3 2\n3 7 2 \n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("cran.all.1400", DOCUMENTS), ("cran.qry", QUERIES), ("cranqrel", JUDGMENTS)):
        (tmp_path / name).write_text(text)
    return tmp_path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(PROGRAM), *arguments], capture_output=True, text=True, timeout=240)


def table(done: subprocess.CompletedProcess[str]) -> tuple[str, dict[str, tuple[float, int]]]:
    """The heading, and nDCG and bytes per document by the name of the row."""
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    heading, cut, empty, _, *lines = done.stdout.splitlines()
    assert re.fullmatch(r"\d+ documents were cut to \d+ tokens", cut)
    assert empty == ""
    rows = [re.fullmatch(r"(.{24}) +([01]\.\d{3}) +([\d,]+) +\d+\.\d s", line) for line in lines]
    found = {row[1].strip(): (float(row[2]), int(row[3].replace(",", ""))) for row in rows if row}
    assert len(found) == len(lines), done.stdout
    return heading, found


def test_queries_are_named_by_their_place(folder: Path) -> None:
    collection = read(folder)
    assert collection.documents[0] == "heat in plates . conduction of heat through composite slabs ."
    # The third has no judged document here.
    assert collection.queries == ["how does heat flow in composite slabs .", "where do cats sleep ."]
    assert collection.judgments == [{0: 4, 1: 1}, {2: 3}]
    assert read(folder, 2).judgments == [{0: 4, 1: 1}]


def test_ndcg_is_scikit_learns() -> None:
    random = np.random.default_rng(0)
    relevance = random.integers(0, 5, (40, 30)) * (random.random((40, 30)) < 0.3)
    relevance[:, 0] = 1
    scores = random.standard_normal((40, 30))
    places = np.argsort(-scores, axis=1)[:, :10]
    judgments = [{place: float(gain) for place, gain in enumerate(row) if gain} for row in relevance]
    assert ndcg(places, judgments) == pytest.approx(ndcg_score(relevance, scores, k=10))


def test_three_documents(folder: Path, minilm: ModelFiles) -> None:
    heading, rows = table(run("--data", str(folder), "--model", str(minilm.path)))
    assert heading.endswith(": 3 documents, 2 queries")
    assert tuple(rows) == ROWS
    # As little as it is, every way finds it.
    assert {score for score, _ in rows.values()} == {1.0}
    sizes = [size for _, size in rows.values()]
    assert sizes[0] == 384 * 4
    assert sizes[1] % 4 == 0
    assert sizes[1] > sizes[2] > sizes[3] > sizes[4] > sizes[5] > sizes[6]
    assert sizes[1] == pytest.approx(32 * sizes[5], abs=32)


def test_a_model_made_for_it(folder: Path, tmp_path: Path) -> None:
    heading, rows = table(run("--data", str(folder), "--model", str(stanford(tmp_path / "colbert"))))
    assert heading.endswith(": 3 documents, 2 queries")
    assert tuple(rows) == ROWS[1:]  # it gives no vector of a whole text
    assert rows["MaxSim, float32"][1] == pytest.approx(32 * rows["MaxSim, binary"][1], abs=32)


@pytest.mark.skipif(not BESIDE.exists(), reason="the collection does not lie beside the repository")
def test_numbers_are_sentence_transformers(minilm: ModelFiles) -> None:
    collection = read(BESIDE, 12)
    heading, rows = table(run("--documents", "12", "--model", str(minilm.path)))
    assert heading.endswith(f": 12 documents, {len(collection.queries)} queries")
    assert tuple(rows) == ROWS

    model = SentenceTransformer(str(minilm.path), device="cpu")
    relevance = np.zeros((len(collection.queries), 12))
    for query, judged in enumerate(collection.judgments):
        relevance[query, list(judged)] = list(judged.values())

    def states(texts: list[str]) -> list[torch.Tensor]:
        return [normalize(rows) for rows in model.encode(texts, output_value="token_embeddings")]

    dense = model.similarity(model.encode(collection.queries), model.encode(collection.documents))
    late = maxsim(states(collection.queries), states(collection.documents))
    assert rows[ROWS[0]][0] == pytest.approx(ndcg_score(relevance, dense, k=10), abs=0.002)
    assert rows[ROWS[1]][0] == pytest.approx(ndcg_score(relevance, late, k=10), abs=0.002)
    assert 0.3 < rows[ROWS[1]][0] < 0.99


@pytest.mark.skipif(not BESIDE.exists(), reason="the collection does not lie beside the repository")
def test_the_whole_collection_is_read() -> None:
    collection = read(BESIDE)
    assert (len(collection.documents), len(collection.queries)) == (1400, 225)
    assert sum(map(len, collection.judgments)) == 1612  # of 1,837 lines, those that are not -1


def test_without_the_collection_it_says_where_to_get_it(tmp_path: Path) -> None:
    done = run("--data", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert WHERE in done.stderr
    assert "--data" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_documents_are_refused(folder: Path) -> None:
    done = run("--data", str(folder), "--documents", "0")
    assert done.returncode == 2
    assert "--documents is 0; it must be 1 or more" in done.stderr
