"""`describe` against what `SentenceTransformer(folder)` makes of the same folder, and against broken folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lemni import hub
from lemni.errors import ModelLoadError
from lemni.hub.spec import ModelFiles, ModelSpec
from tests.hub.fake_index import tiny_model

pytest.importorskip("sentence_transformers")

MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
LEGACY = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def describe(folder: Path) -> ModelSpec:
    return hub.describe(ModelFiles("x", folder, None, "folder"))


def edit(file: Path, **changes: Any) -> None:
    """Set keys of a JSON file; None removes one."""
    config = (json.loads(file.read_text()) if file.exists() else {}) | changes
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def reference(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def assert_same(folder: Path) -> ModelSpec:
    """Everything that sentence-transformers says about the folder, describe says too."""
    from sentence_transformers.models import Dense, Normalize, Pooling

    spec, model = describe(folder), reference(folder)
    pooling = next(m for m in model if isinstance(m, Pooling))
    modes = pooling.pooling_mode
    assert spec.pooling == ((modes,) if isinstance(modes, str) else tuple(modes))
    assert spec.include_prompt == pooling.include_prompt
    dense = [m for m in model if isinstance(m, Dense)]
    assert len(spec.dense) == len(dense)
    for ours, theirs in zip(spec.dense, dense, strict=True):
        activation = type(theirs.activation_function).__name__
        assert (ours.in_features, ours.out_features, ours.bias) == (
            theirs.in_features,
            theirs.out_features,
            theirs.bias,
        )
        assert ours.activation == activation
        store = hub.TensorStore([ours.path])
        np.testing.assert_array_equal(store.numpy("linear.weight"), theirs.linear.weight.detach().numpy())
    assert spec.normalize == any(isinstance(m, Normalize) for m in model)
    assert spec.max_length == model.max_seq_length
    assert spec.lower_case == model[0].do_lower_case
    assert spec.truncation_side == model.tokenizer.truncation_side
    assert spec.padding_side == model.tokenizer.padding_side
    assert {"query": "", "document": ""} | spec.prompts == model.prompts
    assert spec.default_prompt_name == model.default_prompt_name
    assert spec.similarity == model.similarity_fn_name
    assert spec.truncate_dim == model.truncate_dim
    return spec


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder saved by sentence-transformers: BERT, mean pooling, two Dense modules, Normalize, prompts."""
    import torch
    from sentence_transformers.models import Dense, Normalize, Pooling

    from tests.tasks.tiny import sentence_model

    folder = tmp_path_factory.mktemp("saved")
    modules = [
        Pooling(32, "mean"),
        Dense(32, 48, bias=True),
        Dense(48, 16, bias=False, activation_function=torch.nn.Identity()),
        Normalize(),
    ]
    sentence_model(folder, modules, prompts={"query": "query: ", "s2s": "find: "}, similarity_fn_name="dot")
    return folder / "model"


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def without_dense(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([m for m in modules if not m["type"].endswith(".Dense")]))


def test_a_saved_model(folder: Path) -> None:
    spec = assert_same(folder)
    assert [layer.activation for layer in spec.dense] == ["Tanh", "Identity"]
    assert (spec.model_type, spec.architectures, spec.max_length) == ("bert", ("BertModel",), 24)
    assert spec.weights == (folder / "model.safetensors",)
    assert spec.prompts == {"query": "query: ", "document": "", "s2s": "find: "}
    assert spec.notes == ()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("legacy", [False, True])
def test_each_pooling_mode_in_old_and_new_writing(folder: Path, mode: str, legacy: bool) -> None:
    file = next(folder.glob("*_Pooling")) / "config.json"
    if legacy:
        file.write_text(
            json.dumps({"word_embedding_dimension": 32} | {key: name == mode for name, key in LEGACY.items()})
        )
    else:
        edit(file, pooling_mode=mode)
    assert assert_same(folder).pooling == (mode,)


@pytest.mark.parametrize(
    "config",
    [
        {"pooling_mode": ["lasttoken", "cls"], "embedding_dimension": 32},
        {"word_embedding_dimension": 32} | dict.fromkeys(LEGACY.values(), True),
        {"word_embedding_dimension": 32, "pooling_mode_cls_token": False},
        {"word_embedding_dimension": 32, "pooling_mode": "max", "pooling_mode_cls_token": True},
        {"word_embedding_dimension": 32, "pooling_mode_lasttoken": True, "include_prompt": False},
        {"word_embedding_dimension": 32},
    ],
)
def test_pooling_configs_of_every_age(folder: Path, config: dict[str, Any]) -> None:
    without_dense(folder)
    (next(folder.glob("*_Pooling")) / "config.json").write_text(json.dumps(config))
    assert_same(folder)


@pytest.mark.parametrize(
    ("sentence", "tokenizer", "positions"),
    [
        ({}, {"model_max_length": 20}, 64),
        ({}, {"model_max_length": 200}, 64),
        ({}, {"model_max_length": 1000000000000000019884624838656}, 64),
        ({}, {}, 64),
        ({"max_seq_length": 16}, {"model_max_length": 20}, 64),
        ({"max_seq_length": 30}, {"model_max_length": 20}, 64),
        ({"max_seq_length": None}, {"model_max_length": 20}, 64),
        ({"processor_kwargs": {"model_max_length": 9}, "max_seq_length": 16}, {"model_max_length": 20}, 64),
        ({"tokenizer_args": {"model_max_length": 9}}, {"model_max_length": 20}, 64),
    ],
)
def test_the_maximum_length(folder: Path, sentence: dict[str, Any], tokenizer: dict[str, Any], positions: int) -> None:
    edit(folder / "sentence_bert_config.json", max_seq_length=None)
    edit(folder / "sentence_bert_config.json", **sentence)
    edit(folder / "tokenizer_config.json", model_max_length=None)
    edit(folder / "tokenizer_config.json", **tokenizer)
    assert describe(folder).config["max_position_embeddings"] == positions
    assert_same(folder)


def test_learned_positions_are_never_passed(folder: Path) -> None:
    edit(folder / "sentence_bert_config.json", max_seq_length=512)
    assert reference(folder).max_seq_length == 512  # it would crash on a text of that length
    assert describe(folder).max_length == 64
    edit(folder / "config.json", model_type="xlm-roberta", pad_token_id=1, max_position_embeddings=514)
    assert describe(folder).max_length == 512
    edit(folder / "config.json", max_position_embeddings=258)
    assert describe(folder).max_length == 256
    edit(folder / "config.json", model_type="nomic_bert", max_position_embeddings=64)  # rotary: no table to leave
    assert describe(folder).max_length == 512
    edit(folder / "config.json", model_type="bert", position_embedding_type="alibi")
    assert describe(folder).max_length == 512


@pytest.mark.parametrize("name", ["roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"])
def test_older_names_of_the_transformer_config(folder: Path, name: str) -> None:
    (folder / "sentence_bert_config.json").unlink()
    (folder / f"sentence_{name}_config.json").write_text(json.dumps({"max_seq_length": 13, "do_lower_case": True}))
    spec = assert_same(folder)
    assert (spec.max_length, spec.lower_case) == (13, True)


@pytest.mark.parametrize("where", ["tokenizer_config", "sentence", "tokenizer_json"])
def test_sides(folder: Path, where: str) -> None:
    sides = {"truncation_side": "left", "padding_side": "left"}
    edit(folder / "tokenizer_config.json", truncation_side=None, padding_side=None)
    if where == "tokenizer_config":
        edit(folder / "tokenizer_config.json", **sides)
    elif where == "sentence":
        edit(folder / "sentence_bert_config.json", processor_kwargs=sides)
    else:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.enable_truncation(20, direction="left")
        tokenizer.enable_padding(direction="left")
        tokenizer.save(str(folder / "tokenizer.json"))
    spec = assert_same(folder)
    assert (spec.truncation_side, spec.padding_side) == ("left", "left")


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"prompts": {}},
        {"prompts": {"query": "q: ", "passage": "p: "}, "default_prompt_name": "passage"},
        {"prompts": {"query": None, "document": "d: "}, "default_prompt_name": None},
        {"similarity_fn_name": "euclidean"},
        {"similarity_fn_name": "manhattan"},
        {"similarity_fn_name": "maxsim"},
        {"similarity_fn_name": None},
        {"truncate_dim": 8},
        None,
    ],
)
def test_prompts_and_similarity(folder: Path, config: dict[str, Any] | None) -> None:
    file = folder / "config_sentence_transformers.json"
    file.unlink()
    if config is not None:
        file.write_text(json.dumps(config))
    assert_same(folder)


def test_matryoshka_dimensions_come_from_either_file(folder: Path) -> None:
    assert describe(folder).matryoshka_dimensions == ()
    edit(folder / "config_sentence_transformers.json", truncate_dim=8)
    assert describe(folder).matryoshka_dimensions == (8,)
    edit(folder / "config.json", matryoshka_dimensions=[16, 8])
    assert describe(folder).matryoshka_dimensions == (8, 16)


def test_a_transformer_in_its_own_folder(folder: Path) -> None:
    inner = folder / "0_Transformer"
    inner.mkdir()
    for path in list(folder.iterdir()):
        if path.is_file() and path.name not in ("modules.json", "config_sentence_transformers.json", "README.md"):
            path.rename(inner / path.name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    spec = assert_same(folder)
    assert spec.transformer_path == inner
    assert spec.weights == (inner / "model.safetensors",)


@pytest.mark.parametrize(
    ("model_type", "changes", "expected", "same"),
    [
        ("bert", {}, "mean", True),
        ("qwen3", {"architectures": ["Qwen3ForCausalLM"]}, "lasttoken", True),
        ("qwen3", {"architectures": ["Qwen3ForCausalLM"], "is_causal": False}, "mean", True),
        # sentence-transformers takes the mean here, which no causal embedder is trained for.
        ("qwen3", {}, "lasttoken", False),
        ("llama", {}, "lasttoken", False),
    ],
)
def test_pooling_of_a_plain_transformers_model(
    tmp_path: Path, model_type: str, changes: dict[str, Any], expected: str, same: bool
) -> None:
    from transformers import AutoConfig, AutoModel

    from tests.tasks.tiny import save_bert

    plain = save_bert(tmp_path / "plain")
    if model_type != "bert":
        sizes = {"vocab_size": 90, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = AutoConfig.for_model(
            model_type, **sizes, num_key_value_heads=2, head_dim=8, intermediate_size=16, max_position_embeddings=64
        )
        AutoModel.from_config(config).save_pretrained(plain)
    edit(plain / "config.json", **changes)
    spec = assert_same(plain) if same else describe(plain)
    assert spec.pooling == (expected,)
    assert spec.normalize is False
    assert len(spec.notes) == 1
    assert "no modules.json" in spec.notes[0]


def test_sharded_weights(folder: Path) -> None:
    from transformers import AutoModel

    whole = hub.TensorStore(describe(folder).weights)
    AutoModel.from_pretrained(folder).save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink()
    spec = describe(folder)
    assert len(spec.weights) > 1
    shards = hub.TensorStore(spec.weights)
    assert sorted(shards.names()) == sorted(whole.names())
    for name in whole.names():
        np.testing.assert_array_equal(shards.numpy(name), whole.numpy(name))
    spec.weights[1].unlink()
    with pytest.raises(
        ModelLoadError, match=rf"1 of {len(spec.weights)} weight files are missing: {spec.weights[1].name}"
    ):
        describe(folder)


def test_other_weights_are_noticed(folder: Path) -> None:
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"")
    (folder / "onnx" / "model_O4.onnx").write_bytes(b"")
    (folder / "pytorch_model.bin").write_bytes(b"")
    spec = describe(folder)
    assert spec.graph == folder / "onnx" / "model.onnx"
    assert spec.pickle == folder / "pytorch_model.bin"
    (folder / "model.safetensors").unlink()
    assert describe(folder).weights == ()
    (folder / "onnx" / "model.onnx").rename(folder / "onnx" / "model_int8.onnx")
    assert describe(folder).graph == folder / "onnx" / "model_O4.onnx"  # float16 is nearer to the weights than int8
    assert "of 2 exported graphs onnx/model_O4.onnx is taken" in describe(folder).notes[-1]
    shutil.rmtree(folder / "onnx")
    assert describe(folder).pickle == folder / "pytorch_model.bin"
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelLoadError, match=r"no weights: neither model\.safetensors"):
        describe(folder)


def test_a_bare_onnx_folder(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    spec = describe(tmp_path)
    assert (spec.model_type, spec.graph, spec.weights, spec.config) == ("", tmp_path / "net.onnx", (), {})


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("modules", [False, True])
def test_a_model2vec_folder(tmp_path: Path, normalize: bool, modules: bool) -> None:
    from model2vec import StaticModel
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    vectors = np.arange(12, dtype=np.float32).reshape(3, 4)
    StaticModel(vectors, tokenizer, config={"normalize": normalize}, normalize=normalize).save_pretrained(tmp_path)
    if not modules:
        (tmp_path / "modules.json").unlink()
    spec = describe(tmp_path)
    assert (spec.model_type, spec.normalize, spec.max_length) == ("model2vec", normalize, None if modules else 512)
    assert spec.transformer_path == tmp_path
    np.testing.assert_array_equal(hub.TensorStore(spec.weights).numpy("embeddings"), vectors)


def test_a_static_model_of_sentence_transformers(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer, models

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "[UNK]": 2}, unk_token="[UNK]"))
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=4)], device="cpu").save(str(tmp_path))
    spec = describe(tmp_path)
    assert (spec.model_type, spec.normalize, spec.pooling) == ("model2vec", False, ("mean",))
    assert (spec.transformer_path / "tokenizer.json").is_file()
    assert hub.TensorStore(spec.weights).names() == ["embedding.weight"]


def test_the_real_model_says_what_sentence_transformers_reads(minilm: ModelFiles) -> None:
    spec = assert_same(minilm.path)
    assert spec.files is not minilm
    assert spec.files.path == minilm.path


MODELS = "sentence_transformers.models"
POOLING = f"{MODELS}.Pooling"
TRANSFORMER = {"path": "", "type": "sentence_transformers.models.Transformer"}


@pytest.mark.parametrize("kind", ["LogitScore", "SpladePooling", "MultiVectorMask"])
@pytest.mark.parametrize("place", [0, 1])
def test_modules_of_no_kind_lead_out_of_the_folder(folder: Path, kind: str, place: int) -> None:
    modules = [TRANSFORMER, {"path": "1_X", "type": f"{MODELS}.{kind}"}]
    modules[place] = {**modules[place], "path": "../x"}
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelLoadError, match="leads out of the model's folder"):
        describe(folder)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", r"config\.json: not valid JSON: .*line 1"),
        ("config.json", "[]", r"config\.json: expected a JSON object, found list"),
        ("config.json", None, r"config\.json: cannot be read: No such file"),
        ("modules.json", "{}", r"modules\.json: expected a list of modules"),
        ("modules.json", "[]", r"modules\.json: expected a list of modules"),
        ("modules.json", "[{}]", r"modules\.json: expected a list of modules"),
        ("modules.json", [{"path": "", "type": "custom_st.Transformer"}], r"'custom_st\.Transformer' is not supported"),
        ("modules.json", [TRANSFORMER, {"path": "x", "type": f"{MODELS}.LSTM"}], "LSTM' is not supported"),
        ("modules.json", [{"path": "1_Pooling", "type": POOLING}], "the first module, and only it"),
        ("modules.json", [TRANSFORMER], "has no Pooling module"),
        ("modules.json", [TRANSFORMER, {"path": "../../x", "type": POOLING}], "leads out of the model's folder"),
        ("modules.json", [TRANSFORMER, {"path": "9_P", "type": POOLING}], r"9_P/config\.json: cannot be read"),
        ("1_Pooling/config.json", {"pooling_mode": "median"}, r"unknown pooling mode 'median'; known are cls, mean"),
        ("2_Dense/config.json", {"in_features": 32}, "in_features and out_features must be numbers"),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "module_input_name 'token_embeddings'"),
        ("2_Dense/model.safetensors", None, r"2_Dense: no model\.safetensors for the Dense module"),
        ("config_sentence_transformers.json", {"prompts": ["a"]}, "prompts must map names to texts"),
        ("config_sentence_transformers.json", {"default_prompt_name": "nope"}, r"'nope' is not one of the prompts"),
        ("tokenizer_config.json", b"\xff\xfe", r"tokenizer_config\.json: not valid JSON"),
        ("model.safetensors.index.json", {"weight_map": {"a": "../x"}}, "names files outside its folder"),
    ],
)  # fmt: skip
def test_broken_folders_are_named(folder: Path, file: str, content: Any, message: str) -> None:
    path = folder / file
    if file == "model.safetensors.index.json":
        (folder / "model.safetensors").unlink()
    if content is None:
        path.unlink()
    else:
        text = content if isinstance(content, str | bytes) else json.dumps(content)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelLoadError, match=message) as caught:
        describe(folder)
    assert str(folder) in caught.value.message


def test_normalize_must_come_last(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([*modules[:2], modules[-1], *modules[2:-1]]))
    with pytest.raises(ModelLoadError, match="Normalize before Dense is not supported"):
        describe(folder)


def test_an_activation_of_foreign_code_is_tanh_and_said(folder: Path) -> None:
    edit(folder / "2_Dense" / "config.json", activation_function="evil.Function")
    assert "'evil.Function' is not torch's; Tanh is used instead" in assert_same(folder).notes[0]


def test_a_model_without_modules_describes_from_two_files(tmp_path: Path) -> None:
    for name, content in tiny_model().items():
        (tmp_path / name).write_bytes(content)
    spec = describe(tmp_path)
    assert (spec.model_type, spec.pooling, spec.max_length, spec.prompts) == ("bert", ("mean",), None, {})
