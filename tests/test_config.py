"""Settings: what each source may say, which one wins, and what a mistake is answered with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lemni.cli.settings import load_settings
from lemni.config import (
    DEFAULT_MODEL,
    EngineSettings,
    HubSettings,
    MediaSettings,
    ModelSettings,
    ServerSettings,
    Settings,
)
from lemni.errors import ConfigError

SECTIONS = (ModelSettings, EngineSettings, ServerSettings, HubSettings, MediaSettings)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def refused(
    flags: dict[str, Any] | None = None,
    environ: dict[str, str] | None = None,
    dotenv: Path | None = None,
    yaml: Path | None = None,
) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(flags or {}, environ or {}, dotenv, yaml)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_field_name_occurs_in_one_section_only() -> None:
    names = [name for section in SECTIONS for name in section.model_fields]
    assert len(names) == len(set(names))


def test_every_field_has_a_description() -> None:
    for section in SECTIONS:
        for name, info in section.model_fields.items():
            assert info.description, f"{section.__name__}.{name}"


def test_nothing_given_is_the_default_model_on_port_7997() -> None:
    settings = load_settings({}, {})
    assert settings == Settings()
    assert [model.model for model in settings.models] == [DEFAULT_MODEL]
    assert settings.server.port == 7997
    assert settings.hub.cache_dir is None


SOURCES = ("yaml", "dotenv", "environ", "flags")


@pytest.mark.parametrize("highest", range(len(SOURCES)))
@pytest.mark.parametrize(
    ("section", "name", "values"),
    [
        ("server", "port", (1001, 1002, 1003, 1004)),
        ("engine", "max_batch_tokens", (11, 12, 13, 14)),
        ("hub", "index_url", ("http://a", "http://b", "http://c", "http://d")),
        ("models", "dtype", ("float32", "float16", "bfloat16", "auto")),
    ],
)
def test_flag_wins_over_environment_over_dotenv_over_yaml(
    tmp_path: Path, section: str, name: str, values: tuple[Any, ...], highest: int
) -> None:
    given = SOURCES[: highest + 1]
    yaml = write(tmp_path / "lemni.yaml", f"{name}: {values[0]}\n") if "yaml" in given else None
    dotenv = write(tmp_path / ".env", f"LEMNI_{name.upper()}={values[1]}\n") if "dotenv" in given else None
    environ = {f"LEMNI_{name.upper()}": str(values[2])} if "environ" in given else {}
    flags = {name: str(values[3])} if "flags" in given else {name: None}
    settings = load_settings(flags, environ, dotenv, yaml)
    at = settings.models[0] if section == "models" else getattr(settings, section)
    assert getattr(at, name) == values[highest]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_can_be_set_in_each_source(section: type[Any], tmp_path: Path) -> None:
    samples = {
        "model": "some/model",
        "runtime": "openvino",
        "dtype": "float16",
        "pooling": "cls",
        "truncate": "left",
        "log_level": "error",
        "cache_dir": "/somewhere",
        "media_urls": "listed",
        "media_allow_hosts": "example.org,10.0.0.0/8",
        "cors_origins": "https://example.org,http://localhost:3000",
        "url_prefix": "/api/v1",
        "prefer": "vllm",
    }
    for name, info in section.model_fields.items():
        value = samples.get(name) or (str(not info.default).lower() if info.annotation is bool else "17")
        sources: list[dict[str, Any]] = [
            {"flags": {name: value}},
            {"environ": {f"LEMNI_{name.upper()}": value}},
            {"dotenv": write(tmp_path / ".env", f"LEMNI_{name.upper()}={value}\n")},
            {"yaml": write(tmp_path / "lemni.yaml", f"{name}: {value if info.annotation is bool else repr(value)}\n")},
        ]
        expected = section.model_validate({name: value})
        assert expected != section.model_validate({})
        for source in sources:
            settings = load_settings(**{"flags": {}, "environ": {}, **source})
            sections = (*settings.models, settings.engine, settings.server, settings.hub, settings.media)
            assert expected in sections, (name, source)


def test_a_yaml_file_describes_several_models(tmp_path: Path) -> None:
    yaml = write(
        tmp_path / "lemni.yaml",
        """
        models:
          - sentence-transformers/all-MiniLM-L6-v2
          - model: ./my-model
            served_name: mine
            dtype: float16
        max_length: 128
        port: 8000
        max_batch_tokens: 512
        offline: true
        """,
    )
    settings = load_settings({}, {}, None, yaml)
    assert [(m.model, m.served_name, m.dtype, m.max_length) for m in settings.models] == [
        (DEFAULT_MODEL, None, "auto", 128),
        ("./my-model", "mine", "float16", 128),
    ]
    assert (settings.server.port, settings.engine.max_batch_tokens, settings.hub.offline) == (8000, 512, True)


def test_a_model_entry_wins_over_the_general_field_of_its_file(tmp_path: Path) -> None:
    yaml = write(tmp_path / "lemni.yaml", "dtype: float16\nmodels: [a, {model: b, dtype: float32}]\n")
    assert [m.dtype for m in load_settings({}, {}, None, yaml).models] == ["float16", "float32"]


def test_options_by_flag_hold_for_all_models(tmp_path: Path) -> None:
    yaml = write(tmp_path / "lemni.yaml", "models: [a, {model: b, dtype: float32, device: cpu}]\n")
    settings = load_settings({"dtype": "bf16"}, {"LEMNI_DEVICE": "cuda"}, None, yaml)
    assert [(m.dtype, m.device) for m in settings.models] == [("bfloat16", "cuda")] * 2


def test_a_model_named_by_flag_keeps_what_the_file_says_about_it(tmp_path: Path) -> None:
    yaml = write(tmp_path / "lemni.yaml", "models: [a, {model: org/b, served_name: b, max_length: 64}]\n")
    for name in ("b", "org/b"):
        (model,) = load_settings({"models": (name,)}, {}, None, yaml).models
        assert (model.model, model.served_name, model.max_length) == ("org/b", "b", 64)
    assert [m.model for m in load_settings({"models": ("other",)}, {}, None, yaml).models] == ["other"]


def test_models_from_the_environment() -> None:
    assert [m.model for m in load_settings({}, {"LEMNI_MODEL": "one,two"}).models] == ["one,two"]
    assert [m.model for m in load_settings({}, {"LEMNI_MODELS": "one, two"}).models] == ["one", "two"]
    assert [m.model for m in load_settings({"models": ("x",)}, {"LEMNI_MODELS": "one"}).models] == ["x"]
    assert "both set" in refused(environ={"LEMNI_MODEL": "one", "LEMNI_MODELS": "two"})


def test_two_models_of_one_name_are_refused() -> None:
    assert "two models are served as 'a'" in refused({"models": ("a", "a")})
    assert "two models are served as 'x'" in refused({"models": ("a", "b"), "served_name": "x"})


def test_the_file_can_be_named_by_a_variable(tmp_path: Path) -> None:
    yaml = write(tmp_path / "other.yaml", "port: 1234\n")
    assert load_settings({}, {"LEMNI_CONFIG": str(yaml)}).server.port == 1234
    flag = write(tmp_path / "flag.yaml", "port: 4321\n")
    assert load_settings({}, {"LEMNI_CONFIG": str(yaml)}, None, flag).server.port == 4321


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    dotenv = write(tmp_path / ".env", "LEMNI_API_KEY=from-file\n")
    assert load_settings({}, {"LEMNI_API_KEY": ""}, dotenv).server.api_key == "from-file"


def test_only_our_keys_of_dotenv_are_looked_at(tmp_path: Path) -> None:
    dotenv = write(tmp_path / ".env", 'PORT=1\nOTHER="x"\n# comment\nLEMNI_PORT="5000"\n')
    assert load_settings({}, {}, dotenv).server.port == 5000
    assert load_settings({}, {}, tmp_path / "missing.env").server.port == 7997


def test_a_broken_line_of_ours_in_dotenv_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.env: line 2 cannot be read: LEMNI_PORT "):
        load_settings({}, {}, write(tmp_path / ".env", '# mine\nLEMNI_PORT="80\n'))
    assert load_settings({}, {}, write(tmp_path / ".env", 'LEMNI_PORT=80\nOTHER="x\n')).server.port == 80


def test_a_line_of_ours_in_dotenv_that_cannot_be_read(tmp_path: Path) -> None:
    dotenv = write(tmp_path / ".env", "OTHER=x\nLEMNI_API_KEY='secret\n")
    message = refused(dotenv=dotenv)
    assert message == f"{dotenv}: line 2 cannot be read: LEMNI_API_KEY (is a quote left open?)"
    assert "secret" not in message
    assert load_settings({}, {}, write(tmp_path / ".env", 'OTHER="x\nLEMNI_PORT=5000\n')).server.port == 5000


def test_dotenv_does_not_look_at_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "leak")
    dotenv = write(tmp_path / ".env", "LEMNI_HOST=${SECRET}\n")
    assert load_settings({}, {}, dotenv).server.host == "${SECRET}"


def test_variables_that_kubernetes_sets_for_a_service_called_lemni_are_not_ours() -> None:
    links = {
        "LEMNI_PORT": "tcp://10.0.0.1:7997",
        "LEMNI_SERVICE_HOST": "10.0.0.1",
        "LEMNI_SERVICE_PORT": "7997",
        "LEMNI_SERVICE_PORT_HTTP": "7997",
        "LEMNI_PORT_7997_TCP": "tcp://10.0.0.1:7997",
        "LEMNI_PORT_7997_TCP_ADDR": "10.0.0.1",
        "LEMNI_API_SERVICE_HOST": "10.0.0.2",
        "LEMNI_API_PORT": "tcp://10.0.0.2:80",
    }
    assert load_settings({}, links) == Settings()


def test_the_cache_folder_follows_xdg() -> None:
    assert load_settings({}, {"XDG_CACHE_HOME": "/xdg"}).hub.cache_dir == Path("/xdg/lemni")
    both = {"XDG_CACHE_HOME": "/xdg", "LEMNI_CACHE_DIR": "/mine"}
    assert load_settings({}, both).hub.cache_dir == Path("/mine")
    # The specification of XDG: a relative path is to be ignored.
    assert load_settings({}, {"XDG_CACHE_HOME": "relative"}).hub.cache_dir is None


def test_short_names_of_precisions() -> None:
    for short, full in (("fp32", "float32"), ("FP16", "float16"), ("half", "float16"), ("bf16", "bfloat16")):
        assert load_settings({"dtype": short}, {}).models[0].dtype == full


@pytest.mark.parametrize(
    ("key", "better"),
    [
        ("LEMNI_PROT", "LEMNI_PORT"),
        ("LEMNI_MAX_BATCH_TOKEN", "LEMNI_MAX_BATCH_TOKENS"),
        ("LEMNI_MODLES", "LEMNI_MODELS"),
    ],
)
def test_an_unknown_variable(tmp_path: Path, key: str, better: str) -> None:
    assert refused(environ={key: "1"}) == f"{key}: unknown variable; did you mean {better}?"
    dotenv = write(tmp_path / ".env", f"{key}=1\n")
    assert refused(dotenv=dotenv) == f"{dotenv}: {key}: unknown variable; did you mean {better}?"


def test_an_unknown_variable_that_is_like_none() -> None:
    assert refused(environ={"LEMNI_XYZZY_Q": "1"}) == "LEMNI_XYZZY_Q: unknown variable"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot: 1", "prot: unknown key; did you mean port?"),
        ("max-batch-tokens: 1", "max-batch-tokens: unknown key; did you mean max_batch_tokens?"),
        ("models: [a, {model: b, dtyp: float32}]", "models[1].dtyp: unknown key; did you mean dtype?"),
        ("models: [{model: b, port: 1}]", "models[0].port: unknown key"),
        ("models: [{dtype: float32}]", "models[0]: the key model is missing"),
        ("models: [3]", "models[0]: 3 is not allowed: must be a model's name or a mapping with the key model"),
        ("models: []", "models: [] is not allowed: must be a list with at least one model"),
        ("models: a", "models: 'a' is not allowed: must be a list with at least one model"),
        ("models: [a]\nmodel: b", "has both model and models; use one of them"),
        (
            "models: [{model: b, max_length: 0}]",
            "models[0].max_length: 0 is not allowed: must be greater than or equal to 1",
        ),
        ("port: yes", "port: True is not allowed: must be a value, not true or false"),
        ("port:", "port: None is not allowed: must be a valid integer"),
        ("threads: 1.5", "threads: 1.5 is not allowed: must be a valid integer, got a number with a fractional part"),
        ("- a", "must be a mapping of keys to values, not a list"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, message: str) -> None:
    yaml = write(tmp_path / "lemni.yaml", text)
    assert refused(yaml=yaml) == f"{yaml}: {message}"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    assert refused(yaml=missing) == f"{missing}: cannot be read: No such file or directory"
    broken = write(tmp_path / "broken.yaml", "port: 1\nhost: [a\n")
    assert refused(yaml=broken).startswith(f"{broken}, line 3: is not valid YAML")
    twice = write(tmp_path / "twice.yaml", "port: 1\nhost: a\nport: 2\n")
    assert refused(yaml=twice) == f"{twice}, line 1: is not valid YAML: the key port is given twice"
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"host: \xff\xfe")
    assert refused(yaml=binary).startswith(f"{binary}: is not UTF-8")
    evil = write(tmp_path / "evil.yaml", "host: !!python/object/apply:os.getcwd []\n")
    assert "could not determine a constructor" in refused(yaml=evil)
    assert load_settings({}, {}, None, write(tmp_path / "empty.yaml", "# nothing\n")) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("port", "70000", "must be less than or equal to 65535"),
        ("port", "http", "must be a valid integer, unable to parse string as an integer"),
        ("dtype", "int3", "must be 'auto', 'float32', 'float16', 'bfloat16', 'int8' or 'fp8'"),
        ("offline", "perhaps", "must be a valid boolean, unable to interpret input"),
        ("max_body_mib", "-1", "must be greater than 0"),
    ],
)
def test_a_bad_value_names_its_source_the_value_and_what_is_allowed(
    tmp_path: Path, name: str, value: str, reason: str
) -> None:
    variable = f"LEMNI_{name.upper()}"
    assert refused({name: value}) == f"--{name.replace('_', '-')}: {value!r} is not allowed: {reason}"
    assert refused(environ={variable: value}) == f"{variable}: {value!r} is not allowed: {reason}"
    dotenv = write(tmp_path / ".env", f"{variable}={value}\n")
    assert refused(dotenv=dotenv) == f"{dotenv}: {variable}: {value!r} is not allowed: {reason}"


def test_hosts_to_fetch_from_are_a_list_or_a_text_with_commas(tmp_path: Path) -> None:
    hosts = ("example.org", "*.cdn.example", "127.0.0.1", "10.0.0.0/8", "::1", "fd00::/8", "minio", "0x7f.test")
    given = "Example.org, *.cdn.example, 127.0.0.1,10.0.0.0/8,[::1],fd00::/8,minio,0x7f.test,"
    assert load_settings({"media_allow_hosts": given}, {}).media.media_allow_hosts == hosts
    yaml = write(tmp_path / "lemni.yaml", f"media_allow_hosts: {list(hosts)}\n")
    assert load_settings({}, {}, None, yaml).media.media_allow_hosts == hosts


@pytest.mark.parametrize(
    "host", ["http://a.test", "a.test:80", "*", "a.*.test", "10.0.0.1/8", "10.0.0", "1.2.3.400", "127", "münchen.de"]
)
def test_what_is_no_host_to_fetch_from(host: str) -> None:
    message = refused({"media_allow_hosts": f"a.test,{host}"})
    assert f"{host!r} should be a host name in ASCII, *.domain, an address or a network" in message


def test_all_bad_values_of_a_section_are_named() -> None:
    message = refused({"port": "x"}, {"LEMNI_MAX_ITEMS": "0"})
    assert "--port: 'x'" in message
    assert "LEMNI_MAX_ITEMS: '0'" in message


def test_secrets_are_shown_neither_in_errors_nor_in_reprs(tmp_path: Path) -> None:
    yaml = write(tmp_path / "lemni.yaml", "api_key: [hunter2]\n")
    assert "hunter2" not in refused(yaml=yaml)
    settings = load_settings({}, {"LEMNI_API_KEY": "hunter2", "LEMNI_HF_TOKEN": "hunter2"})
    assert settings.server.api_key == settings.hub.hf_token == "hunter2"
    assert "hunter2" not in repr(settings)
