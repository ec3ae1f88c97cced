"""Models of the sizes that people use, with random weights: BERT-base, bge-large, and a reranker as MiniLM-L6 is."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.report import Report
from benchmarks.works import Texts, Work

FOLDER = Path(sys.prefix) / "peers" / "shapes"
# Layers, hidden, inner, heads; pooling.
ENCODERS = {"BERT-base": (12, 768, 3072, 12, "mean"), "bge-large": (24, 1024, 4096, 16, "cls")}
RERANKER = (6, 384, 1536, 12)
TINY = Path(__file__).parents[2] / "shared" / "models" / "ce-tiny"
LONGEST = 512
# Texts: as many as take some seconds.
COUNTS = {"BERT-base": 36, "bge-large": 12}


def encoders(tokenizer: Path) -> Iterator[tuple[str, Path]]:
    """Names and folders, as sentence-transformers writes them; `tokenizer` is the folder of a model with one."""
    for name, (*sizes, pooling) in ENCODERS.items():
        yield name, _made(name, tokenizer, [int(size) for size in sizes], str(pooling))


def cross_encoders(tokenizer: Path) -> Iterator[tuple[str, Path]]:
    if TINY.exists():
        yield "tiny cross-encoder", TINY
    yield "MiniLM-L6 cross-encoder", _made("cross-encoder", tokenizer, RERANKER, None)


def work(texts: Texts, name: str) -> Work:
    return texts.mixed(COUNTS[name], LONGEST)


def _made(name: str, tokenizer: Path, sizes: Sequence[int], pooling: str | None) -> Path:
    """The folder, written on first use. Weights are random, so vectors mean nothing but cost what real ones do."""
    folder = FOLDER / name
    if (folder / "model.safetensors").exists():
        return folder
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    layers, hidden, inner, heads = sizes
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522,
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=inner,
        num_attention_heads=heads,
        max_position_embeddings=LONGEST,
        num_labels=1,
    )
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("tokenizer.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copyfile(tokenizer / file, folder / file)
    about = json.loads((tokenizer / "tokenizer_config.json").read_text("utf-8"))
    _write(folder / "tokenizer_config.json", about | {"model_max_length": LONGEST})
    if pooling:
        for part in ("1_Pooling", "2_Normalize"):
            (folder / part).mkdir(exist_ok=True)
        shutil.copyfile(tokenizer / "modules.json", folder / "modules.json")
        _write(folder / "sentence_bert_config.json", {"max_seq_length": LONGEST, "do_lower_case": False})
        modes = {
            f"pooling_mode_{mode}": mode.startswith(pooling) for mode in ("cls_token", "mean_tokens", "max_tokens")
        }
        _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": hidden, **modes})
    # The weights last: they are the mark of a whole folder.
    (BertModel if pooling else BertForSequenceClassification)(config).save_pretrained(folder)
    return folder


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2), "utf-8")


def main(rounds: int = 3, engines: Sequence[str] | None = None, output: Path | None = None) -> None:
    from benchmarks.offline import compare, report_of
    from benchmarks.peers.engines import SHAPES, default_model, named

    model = default_model()
    texts = Texts(model / "tokenizer.json")

    def fill(report: Report) -> None:
        for name, folder in encoders(model):
            compare(report, named(SHAPES, engines), folder, [work(texts, name)], rounds, title=name)

    report_of("shapes", "Larger models, random weights", output, fill)


if __name__ == "__main__":
    main()
