"""Which token budget, and how many CPU streams: throughput of the default model over mixed lengths."""

from __future__ import annotations

import os
from contextlib import ExitStack

import lemni
from benchmarks.rounds import alternate, table
from benchmarks.texts import mixed


def main(count: int = 250) -> None:
    texts = mixed(count)
    cores = len(os.sched_getaffinity(0))
    with ExitStack() as stack:
        cases = {}
        for replicas in sorted({1, cores}):
            for budget in (128, 256, 512, 1024, 2048, 4096):
                model = stack.enter_context(lemni.load(device="cpu", max_batch_tokens=budget, replicas=replicas))
                cases[f"{budget} tokens x {replicas}"] = lambda model=model: model.embed(texts)
        table(alternate(cases), len(texts), "texts", "512 tokens x 1")


if __name__ == "__main__":
    main()
