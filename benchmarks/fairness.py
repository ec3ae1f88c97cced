"""Latency of a one-line query alone, and while a bulk list of the same model is being embedded."""

from __future__ import annotations

import threading
import time
from statistics import median, quantiles

import lemni
from benchmarks.texts import mixed
from lemni.config import DEFAULT_MODEL


def latencies(model: lemni.Embedder, count: int) -> list[float]:
    values = []
    for number in range(count):
        start = time.perf_counter()
        model.embed(f"how do I reset my password, attempt {number}?")
        values.append(1000 * (time.perf_counter() - start))
    return values


def main(queries: int = 60) -> None:
    texts = mixed(2000)
    with lemni.load(DEFAULT_MODEL, device="cpu") as model:
        latencies(model, 10)
        alone = latencies(model, queries)
        done = threading.Event()

        def bulk() -> None:
            while not done.is_set():
                model.embed(texts)

        thread = threading.Thread(target=bulk)
        thread.start()
        time.sleep(0.5)
        beside = latencies(model, queries)
        done.set()
        thread.join()
    print(f"{'':28} {'p50 ms':>8} {'p95 ms':>8}")
    for name, values in (("alone", alone), ("beside a bulk list", beside)):
        print(f"{name:28} {median(values):8.1f} {quantiles(values, n=20)[-1]:8.1f}")


if __name__ == "__main__":
    main()
