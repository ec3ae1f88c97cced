"""Variables without a prefix that two small embedding services are configured with, for `lemni serve` in their place.

EMBEDDING_MODEL, DEVICE, BATCH_SIZE, MAX_SEQ_LENGTH, HOST, PORT and QUANTIZATION, from the environment or .env. Other
programs use such names too, so everything else wins over them, and one that makes no sense here is a warning.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path

logger = logging.getLogger("lemni.settings")

_PRECISIONS = {
    "fp32": "float32", "float32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "int8", "fp8": "fp8",
}  # fmt: skip


def plain_values(variables: Mapping[str, str | None]) -> dict[str, tuple[str, str]]:
    """Field name -> (value, name of the variable), for those that are set and make sense."""
    found: dict[str, tuple[str, str]] = {}
    for name, (field, read) in _READERS.items():
        text = (variables.get(name) or "").strip()
        value = read(text) if text else None
        if value is not None and field is not None:
            found[field] = (value, name)
    return found


def _model(text: str) -> str | None:
    # Both services take sentence-transformers' own models by their bare names.
    bare = re.fullmatch(r"(all|multi-qa|paraphrase|msmarco)-[\w.-]+", text)
    return f"sentence-transformers/{text}" if bare and not Path(text).exists() else text


def _device(text: str) -> str | None:
    lower = text.lower()
    if lower.startswith("cuda") and not Path("/dev/nvidiactl").exists():
        logger.warning("DEVICE=%s, but there is no GPU: the CPU is used", text)
        return "cpu"
    if lower in ("cpu", "auto") or re.fullmatch(r"cuda(:\d+)?", lower):
        return lower
    return _strange("DEVICE", text, "cpu, cuda or cuda:N")


def _whole(name: str) -> Callable[[str], str | None]:
    return lambda text: text if text.isdecimal() else _strange(name, text, "a whole number")


def _host(text: str) -> str | None:
    # Some shells set HOST to the machine's name.
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return text if text == "localhost" else _strange("HOST", text, "an address such as 0.0.0.0")
    return text


def _precision(text: str) -> str | None:
    lower = text.lower()
    gpu = Path("/dev/nvidiactl").exists()
    if lower == "fp16" and not gpu:
        logger.warning("QUANTIZATION=%s, but CPUs compute in fp32: the weights are rounded, which saves no time", text)
    if (lower == "int8" and gpu) or (lower == "fp8" and not gpu):
        logger.warning("QUANTIZATION=%s, but that is for %s: fp32 is used", text, "CPUs" if gpu else "GPUs")
        return "float32"
    return _PRECISIONS.get(lower) or _strange("QUANTIZATION", text, "fp32, fp16, bf16, int8 or fp8")


def _batch_size(text: str) -> str | None:
    logger.info("BATCH_SIZE=%s is not needed: batches are cut by tokens (--max-batch-tokens)", text)
    return None


def _strange(name: str, text: str, must: str) -> str | None:
    logger.warning("%s=%s is left alone: it would have to be %s", name, text[:100], must)
    return None


# Variable -> the setting it stands for, and how it is read.
_READERS: dict[str, tuple[str | None, Callable[[str], str | None]]] = {
    "EMBEDDING_MODEL": ("model", _model),
    "DEVICE": ("device", _device),
    "BATCH_SIZE": (None, _batch_size),
    "MAX_SEQ_LENGTH": ("max_length", _whole("MAX_SEQ_LENGTH")),
    "HOST": ("host", _host),
    "PORT": ("port", _whole("PORT")),
    "QUANTIZATION": ("dtype", _precision),
}
