"""Records what a genuine Infinity 0.0.78 answers, from tiny random models, into the folder of this file.

Run in an environment of its own; README.md lists its packages. Nothing of the tests imports this.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import numpy as np
import torch
import transformers as hf
from colpali_engine.models import ColQwen2, ColQwen2Processor
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

HERE = Path(__file__).parent
HEADERS = ("content-type", "www-authenticate", "allow", "location", "retry-after")
COLQWEN, COLBERT, CLIP = "michaelfeil/colqwen2-v0.1", "colbert-ir/colbertv2.0", "openai/clip-vit-base-patch32"
DENSE, MINILM = "BAAI/bge-small-en-v1.5", "sentence-transformers/all-MiniLM-L6-v2"
RERANKER, CLASSIFIER = "BAAI/bge-reranker-v2-m3", "SamLowe/roberta-base-go_emotions"
QUERY = "How to kill a Python process?"
DOCUMENTS = [
    "Python is a non-venomous snake that kills prey by constriction.",
    "Use kill -9 PID or pkill python to terminate a Python process.",
    "",
]
_CORE = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
_WORDS = [
    *("what", "is", "retrieval", "augmented", "generation", "rag", "document", "query", "describe", "the", "image"),
    *("hello", "world", "test", "text", "async", "python", "process", "kill", "a", "cat", "to", "how", "?", "!", "."),
    *(":", ",", "1", "2", "3", "user"),
]


def tokenizer(
    folder: Path, kind: str, specials: list[str], single: str, pair: str | None = None, **options: Any
) -> int:
    """A tokenizer of words, which transformers opens as `kind`; gives the size of its vocabulary."""
    ids = {token: index for index, token in enumerate([*specials, *_WORDS])}
    made = Tokenizer(models.WordLevel(ids, unk_token=specials[0]))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.normalizer = normalizers.Lowercase()
    marks = [(token, ids[token]) for token in single.split() if token != "$A"]
    made.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=marks)
    fast = hf.PreTrainedTokenizerFast(tokenizer_object=made, additional_special_tokens=specials, **options)
    fast.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_class": kind}))
    return len(ids)


def bert(folder: Path, cls: type, hidden: int, architecture: str | None = None, **config: Any) -> Path:
    specials = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
    names = {f"{name[1:-1].lower()}_token": name for name in specials}
    kind, single, pair = "PreTrainedTokenizerFast", "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]"
    size = tokenizer(folder, kind, specials, single, pair, model_max_length=64, **names)
    model = cls(
        hf.BertConfig(
            vocab_size=size, hidden_size=hidden, max_position_embeddings=64, pad_token_id=1, **_CORE, **config
        )
    )
    save(model, folder, architecture)
    return folder


def clip(folder: Path) -> Path:
    folder.mkdir()
    letters = [letter + end for letter in pre_tokenizers.ByteLevel.alphabet() for end in ("", "</w>")]
    ids = {token: index for index, token in enumerate([*sorted(letters), "<|startoftext|>", "<|endoftext|>"])}
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    hf.CLIPTokenizerFast.from_pretrained(folder, model_max_length=24).save_pretrained(folder)
    text = {"vocab_size": len(ids), "hidden_size": 16, "max_position_embeddings": 24, **_CORE}
    text |= {"bos_token_id": len(ids) - 2, "eos_token_id": len(ids) - 1, "pad_token_id": len(ids) - 1}
    eyes = {"hidden_size": 16, "image_size": 16, "patch_size": 8, **_CORE}
    save(hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=eyes, projection_dim=8)), folder)
    hf.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"processor_class": "CLIPProcessor"}))
    return folder


def colqwen2(folder: Path) -> Path:
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
    size = tokenizer(
        folder, "Qwen2Tokenizer", specials, "$A", pad_token=specials[0], eos_token=specials[0], unk_token=specials[0]
    )
    config = hf.Qwen2VLConfig(
        vocab_size=size,
        hidden_size=16,
        num_key_value_heads=1,
        max_position_embeddings=256,
        rope_scaling={"type": "mrope", "mrope_section": [1, 1, 2]},
        vision_config={"depth": 1, "num_heads": 2, "embed_dim": 16, "hidden_size": 16},
        image_token_id=5,
        vision_start_token_id=3,
        vision_end_token_id=4,
        video_token_id=size - 1,
        **_CORE,
    )
    save(ColQwen2(config), folder)
    hf.Qwen2VLImageProcessor(min_pixels=4 * 28 * 28, max_pixels=16 * 28 * 28).save_pretrained(folder)
    ColQwen2Processor.from_pretrained(folder)
    return folder


def save(model: Any, folder: Path, architecture: str | None = None) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    model.save_pretrained(folder)
    if architecture:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"architectures": [architecture]}))


def picture(seed: int) -> str:
    """A JPEG of soft colours, as a data URI."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC).save(out, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


@contextlib.contextmanager
def server(folder: Path, folders: dict[str, Path], *arguments: str, queue: int = 32_000) -> Iterator[httpx.Client]:
    command = [sys.executable, "-m", "infinity_emb.cli", "v2", "--engine", "torch", "--device", "cpu", "--port", "0"]
    command += ["--host", "127.0.0.1", "--dtype", "float32", "--no-model-warmup", "--no-bettertransformer", *arguments]
    for name, path in folders.items():
        command += ["--model-id", str(path), "--served-model-name", name]
    environ = os.environ | {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "INFINITY_HOME": str(folder)}
    environ["INFINITY_QUEUE_SIZE"] = str(queue)
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=out, stderr=subprocess.STDOUT)
    try:
        while not (found := re.search(r"running on (http://\S+)", log.read_text())):
            if process.poll() is not None:
                sys.exit(log.read_text())
            time.sleep(0.2)
        with httpx.Client(base_url=found[1], timeout=120) as client:
            yield client
    finally:
        process.terminate()
        process.wait()


def requests() -> Iterator[tuple[str, str, str, dict[str, Any] | None]]:
    """Name, method, path and body of each recording."""
    yield "health", "GET", "/health", None
    yield "models", "GET", "/models", None
    yield "no-such-path", "GET", "/v1/models", None

    def embeddings(name: str, **body: Any) -> tuple[str, str, str, dict[str, Any]]:
        return name, "POST", "/embeddings", body

    for name, model, texts in (
        ("dense-one", DENSE, ["Hello, world!"]),
        ("dense-four", DENSE, ["Hello", "World", "Embedding", "Test"]),
        ("dense-probe", DENSE, ["test"]),
        ("dense-other-model", MINILM, ["Test"]),
        ("dense-error-handling", DENSE, ["Test text"]),
    ):
        yield embeddings(f"{name}-base64", model=model, input=texts, encoding_format="base64")
    yield embeddings("dense-one-float", model=DENSE, input=["Hello, world!"])
    for name, texts in (("one", ["Hello, world!"]), ("four", ["Hello", "World", "Embedding", "Test"])):
        body = {"model": DENSE, "input": texts, "encoding_format": "base64", "dimensions": 384}
        yield embeddings(f"dense-{name}-384-base64", **body)
    yield embeddings("dense-385", model=DENSE, input=["Hello, world!"], dimensions=385, encoding_format="base64")
    yield embeddings("unknown-model", model="no/such-model", input=["Hello"], encoding_format="base64")

    texts = ["A cat", "The image is a test"]
    yield embeddings("colbert-float", model=COLBERT, input=texts)
    yield embeddings("colbert-base64", model=COLBERT, input=texts, encoding_format="base64")
    yield embeddings("colbert-dimensions", model=COLBERT, input=texts, dimensions=2)
    for name, texts in (
        ("query", ["What is retrieval augmented generation?"]),
        ("short-query", ["What is RAG?"]),
        ("documents", ["Document 1", "Document 2", "Document 3"]),
        ("uneven", ["cat", "What is the image?"]),
        ("async-text", ["async text"]),
        ("async-query", ["async query"]),
        ("async-documents", ["doc1", "doc2"]),
    ):
        yield embeddings(f"colqwen2-{name}-base64", model=COLQWEN, input=texts, encoding_format="base64")
    yield embeddings("colqwen2-one-token-float", model=COLQWEN, input=["test"], dimensions=1)
    for name, seeds in (("image", [1]), ("two-images", [1, 2]), ("three-images", [1, 2, 3])):
        body = {"modality": "image", "input": [picture(seed) for seed in seeds], "encoding_format": "base64"}
        yield embeddings(f"colqwen2-{name}-base64", model=COLQWEN, **body)

    for form in ("float", "base64"):
        yield embeddings(f"clip-text-{form}", model=CLIP, input=["a cat", "hello world"], encoding_format=form)
        body = {"modality": "image", "input": [picture(1), picture(2)], "encoding_format": form}
        yield embeddings(f"clip-image-{form}", model=CLIP, **body)
    image = {"model": CLIP, "modality": "image"}
    yield embeddings("image-bare-base64", **image, input=[picture(1).partition(",")[2]])
    yield embeddings("image-broken", **image, input=["data:image/jpeg;base64,bm90IGFuIGltYWdl"])
    yield embeddings("image-of-loopback", **image, input=["http://127.0.0.1:1/cat.jpg"])
    yield embeddings("image-for-text-model", model=DENSE, modality="image", input=[picture(1)])
    yield embeddings("empty", model=DENSE, input=[])

    rerank = {"model": RERANKER, "query": QUERY, "documents": DOCUMENTS}
    yield "rerank", "POST", "/rerank", rerank
    yield "rerank-documents", "POST", "/rerank", {**rerank, "return_documents": True, "top_n": 2}
    yield "rerank-raw", "POST", "/rerank", {**rerank, "raw_scores": True}
    yield "rerank-top-n-negative", "POST", "/rerank", {**rerank, "top_n": -1}
    yield "rerank-no-ranker", "POST", "/rerank", {**rerank, "model": DENSE}
    yield "classify", "POST", "/classify", {"model": CLASSIFIER, "input": ["hello world", "kill a cat"]}
    yield "classify-no-classifier", "POST", "/classify", {"model": DENSE, "input": ["hello"]}


def record(client: httpx.Client, name: str, method: str, path: str, body: dict[str, Any] | None) -> int:
    reply = client.request(method, path, json=body)
    headers = {header: reply.headers[header] for header in HEADERS if header in reply.headers}
    request = json.dumps({"method": method, "path": path, "body": body})
    response = json.dumps({"status": reply.status_code, "headers": headers, "body": reply.json()}, ensure_ascii=False)
    (HERE / f"{name}.json").write_text(f'{{\n"request": {request},\n"response": {response}\n}}\n')
    print(reply.status_code, len(response), name)
    return reply.status_code


def record_overload(client: httpx.Client) -> None:
    """Ask for a vector while more texts wait than the queue holds, until that is refused."""
    many = Thread(target=client.post, args=["/embeddings"], kwargs={"json": {"input": ["a cat " * 30] * 2048}})
    many.start()
    while many.is_alive():
        if record(client, "overloaded", "POST", "/embeddings", {"model": DENSE, "input": ["late"]}) == 429:
            break
    many.join()


def main() -> None:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        dense = bert(folder / "dense", hf.BertModel, 384)
        folders = {
            DENSE: dense,
            MINILM: dense,
            COLBERT: bert(folder / "colbert", hf.BertModel, 8, "HF_ColBERT"),
            CLIP: clip(folder / "clip"),
            COLQWEN: colqwen2(folder / "colqwen2"),
            RERANKER: bert(folder / "ranker", hf.BertForSequenceClassification, 16, num_labels=1),
            CLASSIFIER: bert(folder / "labels", hf.BertForSequenceClassification, 16, num_labels=3),
        }
        with server(folder, folders) as client:
            for request in requests():
                record(client, *request)
        with server(folder, {DENSE: dense}, "--api-key", "sk-other") as client:
            record(client, "unauthorized", "POST", "/embeddings", {"model": DENSE, "input": ["secret"]})
        with server(folder, {DENSE: dense}, queue=1) as client:
            record_overload(client)


if __name__ == "__main__":
    main()
