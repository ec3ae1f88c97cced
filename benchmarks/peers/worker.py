"""Runs one engine in its own environment: a line of JSON on stdin is a list of texts, a line on stdout says what
computing took. Knows the standard library, numpy and the engine; `benchmarks.peers.engines` starts it."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

Options = dict[str, Any]
# Of texts a row each; of documents a score each, the query first.
Run = Callable[[list[str]], Any]


def lemni(options: Options) -> Run:
    import lemni

    model = lemni.load(options["model"], device="cpu", dtype=options["dtype"], threads=options["threads"])
    if options["task"] == "rerank":
        return lambda texts: model.score([lemni.Pair(texts[0], text) for text in texts[1:]])
    return model.embed


def sentence_transformers(options: Options) -> Run:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(options["threads"])
    how: Options = {}
    if options["backend"] != "torch":
        how["file_name"] = options["file_name"]
    if options["backend"] == "onnx":
        import onnxruntime

        how["provider"] = "CPUExecutionProvider"
        how["session_options"] = onnxruntime.SessionOptions()
        how["session_options"].intra_op_num_threads = options["threads"]
    if options["backend"] == "openvino":
        how["ov_config"] = {"INFERENCE_NUM_THREADS": str(options["threads"]), "PERFORMANCE_HINT": "LATENCY"}
        if options.get("hint"):
            how["ov_config"]["INFERENCE_PRECISION_HINT"] = options["hint"]
    model = SentenceTransformer(options["model"], device="cpu", backend=options["backend"], model_kwargs=how)
    return lambda texts: model.encode(texts, normalize_embeddings=True, show_progress_bar=False)


def cross_encoder(options: Options) -> Run:
    import torch
    from sentence_transformers import CrossEncoder

    torch.set_num_threads(options["threads"])
    model = CrossEncoder(options["model"], device="cpu")
    return lambda texts: model.predict([(texts[0], text) for text in texts[1:]], show_progress_bar=False)


def infinity(options: Options) -> Run:
    if options["engine"] == "optimum":
        # It hands optimum a file's path, and optimum compares names: both are one only here. It writes the optimised
        # file where the hub's cache is, named by the model, which is now ".".
        os.chdir(options["model"])
        options["model"], os.environ["HF_HUB_CACHE"] = ".", os.path.join(options["model"], "optimized")
    import numpy as np
    import torch
    from infinity_emb import AsyncEmbeddingEngine, EngineArgs

    torch.set_num_threads(options["threads"])
    arguments = EngineArgs(
        model_name_or_path=options["model"],
        engine=options["engine"],
        batch_size=options["batch"],
        device="cpu",
        dtype="float32",
        # Its default, compile, ends in an error with every torch since 2.5.
        compile=False,
        pooling_method="mean",
        model_warmup=False,
    )
    loop = asyncio.new_event_loop()
    engine = AsyncEmbeddingEngine.from_args(arguments)
    loop.run_until_complete(engine.astart())

    def embed(texts: list[str]) -> Any:
        return np.asarray(loop.run_until_complete(engine.embed(sentences=texts))[0])

    def rerank(texts: list[str]) -> Any:
        found, _ = loop.run_until_complete(engine.rerank(query=texts[0], docs=texts[1:]))
        return [one.relevance_score for one in sorted(found, key=lambda one: one.index)]

    return rerank if options["task"] == "rerank" else embed


def fastembed(options: Options) -> Run:
    import numpy as np
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    with open(os.path.join(options["model"], "config.json")) as file:
        dim = json.load(file)["hidden_size"]
    TextEmbedding.add_custom_model(
        model="local/model",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="local/model"),
        dim=dim,
        model_file=options["file"],
    )
    model = TextEmbedding("local/model", specific_model_path=options["model"], threads=options["threads"])
    return lambda texts: np.stack(list(model.embed(texts, batch_size=32)))


def llama_cpp(options: Options) -> Run:
    import numpy as np
    from llama_cpp import Llama

    model = Llama(
        options["model"],
        embedding=True,
        # The positions that the models have; more in a batch was not faster.
        n_ctx=512,
        n_batch=512,
        n_ubatch=512,
        n_threads=options["threads"],
        n_threads_batch=options["threads"],
        verbose=False,
    )
    return lambda texts: np.asarray(model.embed(texts, normalize=True), np.float32)


def vllm(options: Options) -> Run:
    import numpy as np
    from vllm import LLM

    # On a CPU the fraction is of its memory.
    model = LLM(options["model"], runner="pooling", dtype="float32", enforce_eager=True, gpu_memory_utilization=0.3)

    def embed(texts: list[str]) -> Any:
        return np.asarray([one.outputs.embedding for one in model.embed(texts, use_tqdm=False)], np.float32)

    return embed


def cpu_s() -> float:
    """User and system time of all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    import numpy as np

    if sys.platform == "linux":
        # It stands still most of the time, and would not see that the benchmark has been killed (PR_SET_PDEATHSIG).
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    # Engines print; only answers may go to the pipe.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run: Run = globals()[sys.argv[1]](json.loads(sys.argv[2]))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        used, start = cpu_s(), time.perf_counter()
        found = run(order["texts"])
        wall, cpu = time.perf_counter() - start, cpu_s() - used
        if sys.argv[1] == "vllm":
            cpu = 0.0  # unknown: its processes compute
        if order.get("vectors"):
            np.save(order["vectors"], np.asarray(found, np.float32))
        print(json.dumps({"wall_s": wall, "cpu_s": cpu}), file=answers, flush=True)


if __name__ == "__main__":
    main()
