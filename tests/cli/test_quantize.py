"""`lemni quantize` over a small model: the table, the report, the plots, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tasks.tiny import save_bert

from .command import error_line, lemni

ARGUMENTS = ("--device", "cpu", "--rounds", "1")


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(save_bert(tmp_path / "model"))


def test_compare_measures_everything(model: str, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("the cat\n\na dog ran\nstocks fell\n")
    (tmp_path / "sts.csv").write_text("the cat,a cat,5\na dog,a bird,2\nstocks,rain on trees,0\n")
    documents = [{"_id": str(n), "text": text} for n, text in enumerate(["cats sleep", "dogs run", "rain falls"])]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": "who sleeps"}))
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels/test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t0\t1\n")
    files = ("--texts", "texts.txt", "--sts", "sts.csv", "--retrieval", ".", "--plot", "-o", "report")
    done = lemni("quantize", model, *ARGUMENTS, *files, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "report/compare.json").read_text())
    assert report["texts"] == 3
    rows = {row["precision"]: row for row in report["rows"]}
    assert set(rows) | set(report["left_out"]) == {"fp32", "fp16", "bf16", "int8"}
    exact, half = rows["fp32"], rows["fp16"]
    assert half["weights_bytes"] < 0.6 * exact["weights_bytes"]
    assert (exact["cosine_min"], exact["speed"]) == (pytest.approx(1), 1)
    assert 0.999 < half["cosine_min"] <= half["cosine_mean"] <= half["cosine_max"] < 1.000001
    assert half["cosine_min"] != 1
    for row in rows.values():
        assert row["resident_bytes"] > 1e7
        assert row["query_ms"] > 0
        assert row["texts_per_s"] > 0
        assert -1 <= row["spearman"] <= 1
        assert 0.5 <= row["ndcg"] <= 1
    assert (tmp_path / "report/compare.svg").read_text("utf-8").startswith("<?xml")
    assert (tmp_path / "report/compare.png").read_bytes().startswith(b"\x89PNG")


def test_a_folder_is_written_and_shown(model: str, tmp_path: Path) -> None:
    done = lemni("quantize", model, "--precision", "bf16", "-o", "half", cwd=tmp_path)
    assert done.stdout.startswith("half: bf16; weights ")
    assert json.loads(lemni("models", "show", "half", "--json", cwd=tmp_path).stdout)["precision"] == "bfloat16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "int8"], "name a new folder for the model with -o"),
        (["--precision", "int8", "-o", "x", "--sts", "y"], "--sts is for --precision compare"),
        (["--precision", "int8", "-o", "x", "--max-length", "64"], "--max-length is for --precision compare"),
        (["-o", "model/config.json"], "model/config.json: File exists"),
        (["--plot"], "name a folder for the plots with -o"),
        (["--sts", "none.csv"], "none.csv: cannot be read"),
        (["--no-accuracy", "--sts", "none.csv"], "--sts and --retrieval measure accuracy"),
        (["--texts", "none.txt"], "none.txt: cannot be read"),
    ],
)
def test_mistakes(model: str, arguments: list[str], message: str, tmp_path: Path) -> None:
    assert message in error_line(lemni("quantize", model, *arguments, cwd=tmp_path))


def test_precisions_by_any_name(model: str, tmp_path: Path) -> None:
    for given in ("float16", "HALF"):
        done = lemni("quantize", model, "--precision", given, "-o", given, cwd=tmp_path)
        assert done.stdout.startswith(f"{given}: fp16; weights ")


def test_no_cache_is_written_into(model: str, tmp_path: Path) -> None:
    cache = tmp_path / "there"
    arguments = ("--precision", "fp16", "-o", "there/half")
    cache.mkdir()
    for variable, name in (("LEMNI_CACHE_DIR", "Lemni's"), ("HF_HUB_CACHE", "the Hugging Face")):
        done = lemni("quantize", model, *arguments, cwd=tmp_path, env={variable: str(cache)})
        assert error_line(done) == f"there/half: is inside {name} cache, {cache}; name a place outside of it"
    assert not list(cache.iterdir())
