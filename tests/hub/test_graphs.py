"""Which exported graph is taken from the folders that exporters write, and what is fetched with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lemni import hub
from lemni.config import HubSettings
from lemni.errors import ModelLoadError, ModelNotFound
from lemni.hub import graphs
from lemni.hub.graphs import GraphWish, choose_graph, graph_parts
from lemni.hub.huggingface import choose_files
from tests.hub.fake_hub import FakeHub

VNNI = frozenset(("avx2", "avx512", "vnni"))
AVX2 = frozenset(("avx2",))
ARM = frozenset(("arm64",))

_O = [f"model_O{level}.onnx" for level in (1, 2, 3, 4)]
_QUANTISED = [f"model_{name}.onnx" for name in ("qint8_arm64", "qint8_avx512", "qint8_avx512_vnni", "quint8_avx2")]
OPENVINO = ["openvino/openvino_model.xml", "openvino/openvino_model_qint8_quantized.xml"]
SENTENCE_TRANSFORMERS = [f"onnx/{name}" for name in ("model.onnx", *_O, *_QUANTISED)]
SENTENCE_TRANSFORMERS += [*OPENVINO, *(name.replace(".xml", ".bin") for name in OPENVINO)]
XENOVA = [
    f"onnx/model{name}.onnx"
    for name in ("", "_fp16", "_int8", "_uint8", "_quantized", "_q4", "_q4f16", "_bnb4")
]  # fmt: skip
FASTEMBED = ["config.json", "model_optimized.onnx", "tokenizer.json"]
OPTIMUM = ["model.onnx", "model_optimized.onnx", "model_quantized.onnx"]
IR = [
    *("openvino_model.xml", "openvino_model.bin", "openvino_tokenizer.xml", "openvino_tokenizer.bin"),
    *("openvino_detokenizer.xml", "openvino_detokenizer.bin"),
]


@pytest.mark.parametrize(
    ("names", "dtype", "cpu", "chosen"),
    [
        (SENTENCE_TRANSFORMERS, "auto", VNNI, "onnx/model.onnx"),
        (SENTENCE_TRANSFORMERS, "bfloat16", ARM, "onnx/model.onnx"),
        (SENTENCE_TRANSFORMERS, "int8", VNNI, "onnx/model_qint8_avx512_vnni.onnx"),
        (SENTENCE_TRANSFORMERS, "int8", VNNI - {"vnni"}, "onnx/model_quint8_avx2.onnx"),
        (SENTENCE_TRANSFORMERS, "int8", AVX2, "onnx/model_quint8_avx2.onnx"),
        (SENTENCE_TRANSFORMERS, "int8", ARM, "onnx/model_qint8_arm64.onnx"),
        (SENTENCE_TRANSFORMERS, "float16", VNNI, "onnx/model_O4.onnx"),
        (XENOVA, "int8", VNNI, "onnx/model_quantized.onnx"),
        (XENOVA, "float32", VNNI, "onnx/model.onnx"),
        (XENOVA, "float16", VNNI, "onnx/model_fp16.onnx"),
        (["onnx/model_q4f16.onnx", "onnx/model_fp16.onnx", "onnx/model_q4.onnx"], "auto", VNNI, "onnx/model_fp16.onnx"),
        (["onnx/model_bnb4.onnx", "onnx/model_quantized.onnx"], "auto", VNNI, "onnx/model_quantized.onnx"),
        (FASTEMBED, "auto", VNNI, "model_optimized.onnx"),
        (OPTIMUM, "auto", VNNI, "model.onnx"),
        (OPTIMUM, "int8", ARM, "model_quantized.onnx"),
        (OPTIMUM[1:], "auto", VNNI, "model_optimized.onnx"),
        (["model_O3.onnx", "model_O1.onnx", "model_O2.onnx"], "auto", VNNI, "model_O2.onnx"),
        (["model.onnx", "onnx/model.onnx", "net.onnx"], "auto", VNNI, "onnx/model.onnx"),
        (["net.onnx"], "int8", VNNI, "net.onnx"),  # what is inside is seen when it is read
        (["encoder.onnx", "decoder_model.onnx"], "auto", VNNI, "encoder.onnx"),
        (IR, "auto", VNNI, "openvino_model.xml"),
        (SENTENCE_TRANSFORMERS[9:], "auto", VNNI, OPENVINO[0]),
        (SENTENCE_TRANSFORMERS[9:], "int8", ARM, OPENVINO[1]),
        (["openvino_model.xml", "notes.xml"], "auto", VNNI, None),  # no IR: its weights are missing
        (["config.json", "elsewhere/model.onnx"], "auto", VNNI, None),
    ],
)  # fmt: skip
def test_which_graph(
    names: list[str], dtype: str, cpu: frozenset[str], chosen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "_cpu_words", lambda: cpu)
    for order in (names, names[::-1]):
        assert choose_graph(order, GraphWish(dtype), "x")[0] == chosen


@pytest.mark.parametrize(
    ("names", "wish", "message"),
    [
        (["a.onnx", "b.onnx"], GraphWish(), r"x: several graphs, and no name says which to take: a\.onnx, b\.onnx"),
        (["a_int8.onnx", "b_int8.onnx"], GraphWish("int8"), r"several graphs.*--graph-file"),
        (["model.onnx"], GraphWish("float16"), r"no exported graph in float16; there are model\.onnx"),
        (["onnx/model_fp16.onnx"], GraphWish("int8"), r"no exported graph in int8; there are onnx/model_fp16\.onnx"),
        (["model_qint8_arm64.onnx"], GraphWish(), r"no exported graph for this CPU; there are model_qint8_arm64\.onnx"),
        (["model.onnx"], GraphWish(file="model_O4.onnx"), r"no exported graph 'model_O4\.onnx'; there are model\.onnx"),
        (["model.safetensors"], GraphWish(needed=True), "no exported graph .*, which is asked for"),
        (["../model.onnx"], GraphWish(file="../model.onnx"), "no exported graph '../model.onnx'; there are none"),
    ],
)
def test_what_is_not_there_is_said(
    names: list[str], wish: GraphWish, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "_cpu_words", lambda: VNNI)
    with pytest.raises(ModelLoadError, match=message):
        choose_graph(names, wish, "x")


def test_why_is_said_where_there_is_a_choice() -> None:
    assert choose_graph(["model.onnx"], GraphWish(), "x") == ("model.onnx", None)
    assert choose_graph(OPTIMUM[1:], GraphWish(), "x") == (
        "model_optimized.onnx",
        "of 2 exported graphs model_optimized.onnx is taken: an optimised one in float32",
    )


@pytest.mark.parametrize(
    ("names", "graph", "parts"),
    [
        (
            ["onnx/model.onnx", "onnx/model.onnx_data", "onnx/model_fp16.onnx", "onnx/model_fp16.onnx_data"],
            "onnx/model_fp16.onnx",
            ["onnx/model_fp16.onnx", "onnx/model_fp16.onnx_data"],
        ),
        (
            ["model.onnx", "model.onnx.data", "model.onnx_data_1", "other.onnx", "config.json"],
            "model.onnx",
            ["model.onnx", "model.onnx.data", "model.onnx_data_1"],
        ),
        (IR, "openvino_model.xml", ["openvino_model.bin", "openvino_model.xml"]),
    ],
)
def test_what_belongs_to_a_graph(names: list[str], graph: str, parts: list[str]) -> None:
    assert sorted(graph_parts(names, graph)) == parts


@pytest.mark.parametrize(
    ("names", "wish", "expected"),
    [
        ([*XENOVA, "config.json"], GraphWish(), ["config.json", "onnx/model.onnx"]),
        (
            [*XENOVA, "onnx/model_fp16.onnx_data"],
            GraphWish("float16"),
            ["onnx/model_fp16.onnx", "onnx/model_fp16.onnx_data"],
        ),
        ([*XENOVA, "model.safetensors"], GraphWish("int8"), ["model.safetensors"]),
        (
            [*XENOVA, "model.safetensors", "2_Dense/model.safetensors", "modules.json"],
            GraphWish(needed=True),
            ["2_Dense/model.safetensors", "modules.json", "onnx/model.onnx"],
        ),
        ([*IR, "config.json"], GraphWish(), ["config.json", "openvino_model.bin", "openvino_model.xml"]),
        (
            [*SENTENCE_TRANSFORMERS, "model.safetensors"],
            GraphWish(file=OPENVINO[1], needed=True),
            [OPENVINO[1].replace(".xml", ".bin"), OPENVINO[1]],
        ),
    ],
)  # fmt: skip
def test_only_the_graph_that_is_wished_for_is_fetched(names: list[str], wish: GraphWish, expected: list[str]) -> None:
    assert choose_files(names, False, "org/model", wish) == expected


def test_a_copy_in_the_cache_without_the_graph_is_completed(hub_server: FakeHub, settings: HubSettings) -> None:
    config = json.dumps({"model_type": "bert"}).encode()
    files = {
        "config.json": config,
        "model.safetensors": b"s",
        "onnx/model.onnx": b"o",
        "onnx/model_quantized.onnx": b"q",
    }
    hub_server.add("org/model", files)
    path = hub.resolve("org/model", settings, progress=False).path
    assert not (path / "onnx").exists()
    wish = GraphWish("int8", needed=True)
    offline = settings.model_copy(update={"offline": True})
    with pytest.raises(ModelNotFound, match=r"only in part: .*no exported graph .*, which is asked for"):
        hub.resolve("org/model", offline, graph=wish)
    found = hub.resolve("org/model", settings, progress=False, graph=wish)
    assert [file.name for file in (found.path / "onnx").iterdir()] == ["model_quantized.onnx"]
    assert hub.resolve("org/model", offline, graph=wish).path == found.path
    assert hub.describe(found, wish).graph == found.path / "onnx" / "model_quantized.onnx"


INT8 = GraphWish("int8", needed=True)


@pytest.mark.parametrize(
    ("weights", "first", "then", "taken"),
    [
        (["model.safetensors"], INT8, GraphWish(), "model.safetensors"),
        ([], INT8, GraphWish(), "onnx/model.onnx"),
        ([], GraphWish(), INT8, "onnx/model_quantized.onnx"),
    ],
)
def test_one_graph_does_not_stand_for_the_repository(
    weights: list[str],
    first: GraphWish,
    then: GraphWish,
    taken: str,
    hub_server: FakeHub,
    settings: HubSettings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = [*weights, "onnx/model.onnx", "onnx/model_quantized.onnx"]
    config = json.dumps({"model_type": "bert"}).encode()
    hub_server.add("org/model", {"config.json": config} | {name: name.encode() for name in names})
    path = hub.resolve("org/model", settings, progress=False, graph=first).path
    assert not (path / taken).exists()
    # Out of reach, the copy serves as far as it goes; to look at it nothing is asked.
    offline = settings.model_copy(update={"offline": True})
    assert hub.resolve("org/model", offline, graph=then).source == "hf-cache"
    assert f"Hugging Face cache: only in part: no {taken} in {path}" in caplog.text
    caplog.clear()
    assert hub.locate("org/model", settings).path == path
    assert caplog.text == ""
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
        assert hub.resolve("org/model", settings, graph=then).source == "hf-cache"
        with pytest.raises(ModelNotFound, match="cannot be reached"):
            hub.pull("org/model", settings, progress=False)
    assert not (path / taken).exists()

    found = hub.resolve("org/model", settings, progress=False, graph=then)
    assert (found.source, found.path) == ("hub", path)
    spec = hub.describe(found, then)
    assert ([*spec.weights, spec.graph][0]) == path / taken
    hub_server.requests.clear()
    for wish in (first, then):
        assert hub.resolve("org/model", settings, graph=wish).source == "hf-cache"
    assert hub_server.requests == []
    assert [model.path for model in hub.list_models(settings)] == [path]


def test_a_copy_by_other_programs_is_taken_as_it_is(hub_server: FakeHub, settings: HubSettings) -> None:
    from huggingface_hub import snapshot_download

    names = ("config.json", "modules.json", "onnx/model.onnx", "onnx/model_quantized.onnx")
    hub_server.add("org/model", {name: b"[]" if name == "modules.json" else b"{}" for name in names})
    snapshot_download("org/model", ignore_patterns="onnx/model.onnx")
    found = hub.resolve("org/model", settings)
    assert found.source == "hf-cache"
    assert [file.name for file in (found.path / "onnx").iterdir()] == ["model_quantized.onnx"]


def test_a_graph_named_itself_stands_for_its_folder(tmp_path: Path, settings: HubSettings) -> None:
    for name in ("config.json", "onnx/model.onnx", "onnx/model_O2.onnx", "bare/onnx/net.onnx", "bare/onnx/other.onnx"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    for name, folder in (("onnx/model_O2.onnx", tmp_path), ("bare/onnx/net.onnx", tmp_path / "bare" / "onnx")):
        files = hub.resolve(str(tmp_path / name), settings)
        assert (files.path, files.source) == (folder, "folder")
        assert hub.describe(files).graph == tmp_path / name
