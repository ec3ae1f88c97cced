"""From settings to a loaded model: finds the files, chooses a runtime, checks what fits together.

The one place that joins hub, families, tasks and runtimes; called by the library, the server and the command line.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Literal

from lemni.config import EngineSettings, HubSettings, MediaSettings, ModelSettings
from lemni.devices import choose_devices, choose_dtype
from lemni.errors import ConfigError, ModelLoadError
from lemni.families import FAMILIES, family_class
from lemni.families.weights import Weights
from lemni.hub import ModelSpec, TensorStore, describe, resolve
from lemni.hub.graphs import GraphWish
from lemni.hub.quantization import check_scheme, has_codes
from lemni.hub.spec import PoolingMode
from lemni.ops.base import Ops
from lemni.runtimes import open_backend
from lemni.runtimes.base import Backend, BackendOptions, Blueprint, Encoder
from lemni.tasks import kind_module
from lemni.tasks.base import Loaded, Parts
from lemni.tasks.model import LoadedModel
from lemni.types import ModelCard

logger = logging.getLogger(__name__)

# Where neither the model's files nor its positions end, a bound that keeps one text from taking all memory.
_LONGEST = 32768


def load_model(
    model: ModelSettings, hub: HubSettings, engine: EngineSettings, media: MediaSettings | None = None
) -> LoadedModel:
    """Find, read and compile one model. `media` limits what its items' images and sounds may be.

    Raises:
        ModelNotFound: nowhere to be found; says what was tried.
        ModelLoadError: the files are broken or need what Lemni does not have.
        ConfigError: settings that this model cannot satisfy.
        MissingExtra: an optional package is needed.
    """
    graph = _graph(model)
    files = resolve(model.model, hub, model.revision, trust_pickle=model.trust_pickle, graph=graph)
    spec = describe(files, graph)
    if model.pooling is not None:
        spec = _pooled(spec, model.pooling)
    for note in spec.notes:
        logger.info("%s: %s", files.id, note)
    devices = choose_devices(model.device, model.runtime)
    if engine.replicas is not None:
        devices = devices[: engine.replicas]
    on_gpu = devices != ("cpu",)
    runtime = _runtime(model, spec, on_gpu=on_gpu)
    if runtime == "onnx" and on_gpu:
        if model.device != "auto":
            raise ConfigError(f"{files.id} runs on onnx, which computes on the CPU: choose --device cpu")
        devices, on_gpu = ("cpu",), False
    if model.dtype == "int8" and runtime not in ("openvino", "onnx"):
        raise ConfigError(
            f"int8 is computed by the runtimes openvino and onnx, on CPUs; {files.id} runs on {runtime}: "
            "choose another dtype"
        )
    if runtime in ("openvino", "torch"):
        check_scheme(spec)
    if model.dtype == "fp8" and (runtime != "torch" or not on_gpu):
        raise ConfigError(
            f"fp8 is computed by the torch runtime, on GPUs; {files.id} runs on {runtime} on {devices[0]}: choose "
            "another dtype"
        )
    options = BackendOptions(
        devices=devices,
        dtype=choose_dtype(model.dtype, spec) if on_gpu else _cpu_dtype(model.dtype, spec, runtime),
        replicas=engine.replicas,
        threads=engine.threads,
        compile=model.compile,
        trust_remote_code=model.trust_remote_code,
        trust_pickle=model.trust_pickle,
    )
    store = TensorStore(spec.weights)
    heads = kind_module(spec.kind).heads(spec)
    backend = open_backend(runtime, Blueprint(spec, _encoder(spec, store), heads, store.release_pages), options)
    try:
        loaded = _assemble(model, spec, backend, store.parameters(), media or MediaSettings.model_validate({}))
        store.release_pages()
        return loaded
    except BaseException:
        backend.close()
        raise


def _pooled(spec: ModelSpec, pooling: PoolingMode | Literal["splade"]) -> ModelSpec:
    """The model with another pooling than its own. Raises ConfigError for a kind whose pooling is not to choose."""
    if pooling == "splade" and spec.kind in ("dense", "sparse"):
        # The function that SparseEncoder takes where nothing says another.
        return spec if spec.kind == "sparse" else dataclasses.replace(spec, kind="sparse", similarity="dot")
    if pooling == "splade" or spec.kind == "sparse":
        raise ConfigError(f"pooling is {pooling!r}, but {spec.files.id} is a {spec.kind} model")
    return dataclasses.replace(spec, pooling=(pooling,))


def _encoder(spec: ModelSpec, store: TensorStore) -> Callable[[Ops], Encoder]:
    def build(ops: Ops) -> Encoder:
        return family_class(spec.model_type, spec.config)(spec.config, Weights(store), ops)

    return build


def _assemble(
    model: ModelSettings, spec: ModelSpec, backend: Backend, parameters: int, media: MediaSettings
) -> LoadedModel:
    name = model.served_name or _served_name(spec)
    longest = _max_length(model.max_length, spec, backend.max_positions)
    parts = Parts(name, spec, backend, longest, model.truncate, model.prompt_name, media)
    loaded: Loaded = kind_module(spec.kind).load(parts)
    card = ModelCard(
        name=name,
        model_id=spec.files.id,
        revision=spec.files.revision,
        source=spec.files.source,
        architecture=next(iter(spec.architectures), spec.model_type),
        tasks=tuple(loaded.tasks),
        modalities=loaded.modalities,
        labels=loaded.labels,
        dimensions=loaded.dimensions,
        max_length=longest,
        vocabulary=loaded.tokenizer.vocabulary if loaded.tokenizer else int(spec.config.get("vocab_size") or 0),
        matryoshka_dimensions=spec.matryoshka_dimensions,
        prompts=dict(loaded.prompts or spec.prompts),
        default_prompt_name=spec.default_prompt_name,
        similarity=spec.similarity,
        normalized=spec.normalize,
        runtime=backend.name,
        device=backend.device,
        dtype=backend.dtype,
        parameters=parameters,
        truncate=model.truncate or spec.truncation_side,
        pooling="+".join(spec.pooling) if "embed" in loaded.tasks else "",
    )
    return LoadedModel(card, loaded, backend)


def _served_name(spec: ModelSpec) -> str:
    """A folder's own name, not its path, which is nobody's business; else the id it was asked for by."""
    return spec.files.path.resolve().name if spec.files.source == "folder" else spec.files.id


def _max_length(wanted: int | None, spec: ModelSpec, positions: int | None) -> int:
    if wanted is not None:
        if positions is not None and wanted > positions:
            raise ConfigError(f"max_length is {wanted}, but {spec.files.id} has positions for {positions} tokens")
        return wanted
    return min(length for length in (spec.max_length, positions, _LONGEST) if length is not None)


def _runtime(model: ModelSettings, spec: ModelSpec, *, on_gpu: bool) -> str:
    if spec.kind == "multimodal":
        if model.runtime not in ("auto", "multimodal"):
            raise ConfigError(f"{spec.files.id} takes images or sound, which only the runtime multimodal computes")
        return "multimodal"
    if model.graph_file is not None or spec.files.graph is not None:
        if model.runtime not in ("auto", "onnx", "openvino"):
            raise ConfigError(f"{spec.graph} runs on onnx, not on {model.runtime}")
        return "onnx"
    if spec.model_type == "model2vec":
        natural = "static"
    elif not spec.weights and spec.graph is not None and not (model.trust_pickle and spec.pickle):
        natural = "onnx"
    elif not spec.weights:
        if not model.trust_pickle:
            raise ModelLoadError(
                f"{spec.files.id} has only pickled weights ({spec.pickle}), which can run code when they are loaded. "
                "If you trust them: --trust-pickle (needs the extra 'torch')"
            )
        natural = "transformers"
    elif spec.model_type not in FAMILIES or (spec.config.get("auto_map") and model.trust_remote_code):
        natural = "transformers"
    else:
        natural = "torch" if on_gpu else "openvino"
    if model.runtime == "auto":
        return natural
    if model.runtime == "openvino" and on_gpu:
        raise ConfigError("runtime openvino computes on the CPU: choose --device cpu, or --runtime torch")
    if model.runtime == "openvino" and natural == "onnx":
        return "onnx"  # which is OpenVINO, where that can run the graph
    return model.runtime


def _graph(model: ModelSettings) -> GraphWish:
    """Which exported graph to take, if one is to run."""
    needed = model.runtime == "onnx" or model.graph_file is not None
    # Pickled weights that are trusted go before a graph, in whatever precision.
    dtype = model.dtype if needed or not model.trust_pickle else "auto"
    return GraphWish(dtype, model.graph_file, needed)


def _cpu_dtype(wanted: str, spec: ModelSpec, runtime: str) -> str:
    if wanted != "auto":
        return wanted
    return "int8" if runtime == "openvino" and has_codes(spec) else "float32"
