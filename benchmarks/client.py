"""What lemni's client costs beside others, on one server with a model that costs next to nothing: CPU and wall time.

The clients run in environments of their own, those of `make test`; each stays open, and they take turns. CPU seconds
are the client process's own, all threads, so neither the server nor the other clients count.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks.peers.process import Process
from benchmarks.startup import served
from benchmarks.texts import mixed

TEXTS = 2048
ALONE = 200
PROGRAM = Path(__file__).with_name("client_program.py")
# Function of the program: its environment beside the tests' own.
CLIENTS = {
    "lemni": "",
    "lemni_async": "",
    "openai": "clients",
    "openai_async": "clients",
    "infinity": "older-clients",
    "infinity_async": "older-clients",
    "baseten": "clients",
    "baseten_async": "clients",
}


class Work(NamedTuple):
    """`texts` in requests of `size` (None: the client's own way), or, `alone`, in a call each."""

    name: str
    texts: list[str]
    size: int | None = None
    alone: bool = False


def write_model(folder: Path, dim: int) -> None:
    """A static model in model2vec's layout: a row per word."""
    import model2vec
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[UNK]", *sorted({word for text in mixed(200) for word in text.split()})]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    vectors = np.random.default_rng(0).standard_normal((len(words), dim)).astype(np.float32)
    model2vec.StaticModel(vectors, tokenizer, normalize=True).save_pretrained(folder)


@contextmanager
def clients(url: str, dim: int) -> Iterator[dict[str, Process]]:
    with ExitStack() as stack:
        running = {}
        for name, group in CLIENTS.items():
            folder = Path(sys.prefix) / "clients" / group if group else Path(sys.prefix)
            running[name] = Process(folder / "bin" / "python", PROGRAM, name, url, "static", str(dim))
            stack.callback(running[name].close)
        yield running


def measure(running: Mapping[str, Process], work: Work, rounds: int) -> dict[str, dict[str, float]]:
    """Medians of each client, which take turns, after a round that does not count: wall seconds, and CPU seconds until
    the client has answered and until there is a matrix."""
    order = {"texts": work.texts, "size": work.size, "alone": work.alone}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in running}
    for number in range(rounds + 1):
        for name, client in running.items():
            answer = client.ask(order)
            if number:
                found[name].append(answer)
    return {name: {key: median(one[key] for one in values) for key in values[0]} for name, values in found.items()}


def table(work: Work, found: Mapping[str, Mapping[str, Any]]) -> None:
    count = len(work.texts)
    fastest = min(value["as_matrix"] for name, value in found.items() if not name.startswith("lemni"))
    print(f"\n{work.name}\n{'':18}{'texts/s':>10}{'per CPU s':>11}{'as matrix':>11}{'ratio':>8}")
    for name, value in found.items():
        rates = [count / value[key] for key in ("wall_s", "as_given", "as_matrix")]
        print(
            f"{name:18}{rates[0]:10.0f}{rates[1]:11.0f}{rates[2]:11.0f}{fastest / value['as_matrix']:8.2f}", flush=True
        )


def main(rounds: int = 9) -> None:
    texts = mixed(TEXTS)
    for dim in (384, 1024):
        sizes = (16, 128, 512) if dim == 384 else (128,)
        works = [
            *(Work(f"{TEXTS} texts in requests of {size}, {dim} dimensions", texts, size) for size in sizes),
            Work(f"{TEXTS} texts, each client's own way, {dim} dimensions", texts),
            Work(f"a text at a time, {dim} dimensions", texts[:ALONE], alone=True),
        ]
        with tempfile.TemporaryDirectory() as folder:
            write_model(Path(folder), dim)
            options = ["--served-name", "static", "--log-level", "warning"]
            with served(folder, *options) as (_, url), clients(url, dim) as running:
                for work in works:
                    table(work, measure(running, work, rounds))


if __name__ == "__main__":
    main()
