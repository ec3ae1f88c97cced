"""Where a setting of a provider comes from: argument, variables from special to general, default; and `.env`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lemni import client as lemni_client
from lemni.client import (
    EmbeddingFactory,
    InfinityEmbeddingClient,
    LocalEmbeddingClient,
    OllamaEmbeddingClient,
    OpenAIEmbeddingClient,
    create_client_from_env,
    create_embedding_client,
    create_infinity_client,
    create_local_client,
    create_ollama_client,
    create_openai_client,
    get_embedding_client,
)
from lemni.client.cache.disk import DiskStore
from lemni.client.cache.memory import MemoryStore
from lemni.client.cache.redis import RedisStore
from lemni.client.ollama_provider import url_of_host
from lemni.errors import ConfigError, InvalidRequest, LemniError

pytestmark = pytest.mark.usefixtures("bare")

INFINITY, OLLAMA, OPENAI, LOCAL = (
    create_infinity_client,
    create_ollama_client,
    create_openai_client,
    create_local_client,
)
MODELS = [("EMBEDDING_MODEL", "general/model", "general/model")]
DIMENSIONS = [("EMBEDDING_DIMENSION", "64", 64)]
DAYS = [("EMBEDDING_CACHE_DURATION_SECONDS", "60", 60)]
KEY: dict[str, Any] = {"api_key": "k"}


def _urls(*names: str) -> list[tuple[str, str, str]]:
    return [
        (name, f"http://{name.lower().replace('_', '-')}:1/", f"http://{name.lower().replace('_', '-')}:1")
        for name in names
    ]


def _times(*names: str) -> list[tuple[str, str, float]]:
    return [(name, str(place + 3), place + 3) for place, name in enumerate(names)]


def _words(*names: str) -> list[tuple[str, str, str]]:
    return [(name, f"of-{name}", f"of-{name}") for name in names]


# Provider, further arguments, argument, its value, what becomes of it, variables in order with values, default.
TABLE: list[tuple[Callable[..., Any], dict[str, Any], str, Any, Any, list[tuple[str, str, Any]], Any]] = [
    (INFINITY, {}, "model", "my/model", "my/model", MODELS, "BAAI/bge-small-en-v1.5"),
    (OLLAMA, {}, "model", "my/model", "my/model", MODELS, "nomic-embed-text"),
    (OPENAI, KEY, "model", "my/model", "my/model", MODELS, "text-embedding-3-small"),
    (LOCAL, {}, "model", "my/model", "my/model", MODELS, "sentence-transformers/all-MiniLM-L6-v2"),
    (
        *(INFINITY, {}, "base_url", "http://mine:1//", "http://mine:1"),
        _urls("INFINITY_URL", "INFINITY_BASE_URL", "EMBEDDING_BASE_URL"),
        "http://localhost:7997",
    ),
    (
        *(OLLAMA, {}, "base_url", "http://mine:1/", "http://mine:1"),
        _urls("OLLAMA_URL", "OLLAMA_HOST", "EMBEDDING_BASE_URL"),
        "http://localhost:11434",
    ),
    (
        *(OPENAI, KEY, "base_url", "http://mine:1/v1/", "http://mine:1/v1"),
        _urls("OPENAI_BASE_URL", "EMBEDDING_BASE_URL"),
        "https://api.openai.com/v1",
    ),
    (INFINITY, {}, "timeout", 2, 2, _times("INFINITY_TIMEOUT", "EMBEDDING_TIMEOUT", "OLLAMA_TIMEOUT"), 30),
    (OLLAMA, {}, "timeout", 2, 2, _times("OLLAMA_TIMEOUT", "EMBEDDING_TIMEOUT"), 60),
    (OPENAI, KEY, "timeout", 2, 2, _times("EMBEDDING_TIMEOUT"), 60),
    (INFINITY, {}, "token", "mine", "mine", _words("INFINITY_TOKEN", "EMBEDDING_TOKEN"), None),
    (
        *(OPENAI, {"base_url": "http://mine:1"}, "api_key", "mine", "mine"),
        _words("OPENAI_API_KEY", "API_KEY", "EMBEDDING_TOKEN"),
        None,
    ),
    (LOCAL, {}, "device", "cpu", "cpu", _words("EMBEDDING_DEVICE"), "auto"),
    (LOCAL, {}, "cache_dir", "/mine", "/mine", _words("EMBEDDING_CACHE_DIR"), None),
    (LOCAL, {}, "trust_remote_code", False, False, [("EMBEDDING_TRUST_REMOTE_CODE", "true", True)], False),
    *(
        (make, more, "embedding_dim", 32, 32, DIMENSIONS, None)
        for make, more in ((INFINITY, {}), (OLLAMA, {}), (LOCAL, {}))
    ),
    (OPENAI, KEY, "embedding_dim", 32, 32, DIMENSIONS, None),
    *((make, more, "cache_duration_seconds", 5, 5, DAYS, 86400) for make, more in ((INFINITY, {}), (OLLAMA, {}))),
]


@pytest.mark.parametrize(("make", "more", "name", "given", "becomes", "variables", "default"), TABLE)
def test_every_combination(
    make: Any, more: Any, name: str, given: Any, becomes: Any, variables: Any, default: Any, bare: Path
) -> None:
    """The argument wins, then the first variable of the row that is set, in the process or in `.env`."""
    with make(**more) as client:
        assert getattr(client, name) == default
    for count in range(1, len(variables) + 1):
        for some in combinations(variables, count):
            for place in ("process", ".env"):
                with pytest.MonkeyPatch.context() as patch:
                    if place == "process":
                        for variable, text, _ in some:
                            patch.setenv(variable, text)
                    else:
                        (bare / ".env").write_text("".join(f"{variable}={text}\n" for variable, text, _ in some))
                    with make(**more) as client:
                        assert getattr(client, name) == some[0][2], (some, place)
                    with make(**more, **{name: given}) as client:
                        assert getattr(client, name) == becomes, (some, place)
                    (bare / ".env").unlink(missing_ok=True)


def test_the_process_wins_over_the_file(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bare / ".env").write_text("INFINITY_URL=http://file:1\nEMBEDDING_MODEL=file/model\n")
    monkeypatch.setenv("INFINITY_URL", "http://process:1")
    with create_infinity_client() as client:
        assert (client.base_url, client.model) == ("http://process:1", "file/model")


def test_blank_variables_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFINITY_URL", " ")
    monkeypatch.setenv("EMBEDDING_MODEL", "")
    with create_infinity_client() as client:
        assert (client.base_url, client.model) == ("http://localhost:7997", "BAAI/bge-small-en-v1.5")


def test_settings_are_read_when_a_client_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    first = create_infinity_client()
    monkeypatch.setenv("EMBEDDING_MODEL", "later/model")
    second = create_infinity_client()
    assert (first.model, second.model) == ("BAAI/bge-small-en-v1.5", "later/model")


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("http://host:7997/rerank", "http://host:7997"),
        ("http://host:7997/v1/rerank/", "http://host:7997/v1"),
        ("http://a:1/rerank, http://b:2/", "http://a:1,http://b:2"),
    ],
)
def test_the_variable_of_the_reranker_s_client_gives_its_server(
    value: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFINITY_URL", value)
    with create_infinity_client() as client:
        assert client.base_url == url


def test_no_other_provider_sends_texts_to_the_url_for_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://third.party/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    for make in (create_infinity_client, create_ollama_client):
        with make() as client:
            assert "third.party" not in client.base_url
            assert "authorization" not in client._connection.headers


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("gpu", "http://gpu:11434"),
        ("gpu:80", "http://gpu:80"),
        (":8080", "http://localhost:8080"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:9", "http://127.0.0.1:9"),
        ("http://0.0.0.0:9/", "http://127.0.0.1:9"),
        ("[::1]", "http://[::1]:11434"),
        ("[::1]:9", "http://[::1]:9"),
        ("gpu/ollama", "http://gpu:11434/ollama"),
        ("https://gpu/ollama/", "https://gpu/ollama"),
        ("http://gpu:11434/api", "http://gpu:11434"),
    ],
)
def test_hosts_as_ollama_writes_them(host: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert url_of_host(host) == url
    monkeypatch.setenv("OLLAMA_HOST", host)
    with create_ollama_client() as client:
        assert client.base_url == url


PROVIDERS = [
    ("infinity", InfinityEmbeddingClient),
    ("Infinity", InfinityEmbeddingClient),
    ("OLLAMA", OllamaEmbeddingClient),
    ("openai", OpenAIEmbeddingClient),
    ("local", LocalEmbeddingClient),
    ("HuggingFace", LocalEmbeddingClient),
]


@pytest.mark.parametrize(("name", "kind"), PROVIDERS)
def test_providers_by_name(name: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert type(create_embedding_client(name)) is kind
    assert type(EmbeddingFactory.create(provider=name, model="m", embedding_dim=3, use_l2_norm=False)) is kind
    monkeypatch.setenv("EMBEDDING_PROVIDER", name)
    for make in (create_embedding_client, create_client_from_env, get_embedding_client, EmbeddingFactory.from_env):
        assert type(make()) is kind
    assert type(create_embedding_client("infinity")) is InfinityEmbeddingClient


def test_the_provider_without_a_name() -> None:
    assert type(create_embedding_client()) is InfinityEmbeddingClient
    client = create_embedding_client(embedding_dim=7, use_l2_norm=False, norm_method="interpolate", timeout=3)
    assert (client.embedding_dim, client.use_l2_norm, client.norm_method) == (7, False, "interpolate")


def test_an_unknown_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"^Unknown provider: Cohere; known: infinity, ollama, openai, local"):
        create_embedding_client("Cohere")
    monkeypatch.setenv("EMBEDDING_PROVIDER", "google_genai")
    with pytest.raises(LemniError, match=r"^Unknown provider: google_genai; "):
        create_client_from_env()
    with pytest.raises(TypeError, match="task_type"):
        create_embedding_client("infinity", task_type="x")


def test_a_key_is_needed_for_openai_alone() -> None:
    with pytest.raises(ValueError, match=r"^OpenAI API key is required\. Set OPENAI_API_KEY"):
        create_openai_client()
    assert create_openai_client(base_url="http://localhost:1/v1").api_key is None


def test_organization_and_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORGANIZATION", "org")
    headers = create_openai_client(api_key="k", project="p")._connection.headers
    assert (headers["openai-organization"], headers["openai-project"]) == ("org", "p")
    assert headers["authorization"] == "Bearer k"


@pytest.mark.parametrize("name", ["INFINITY_TIMEOUT", "EMBEDDING_DIMENSION", "EMBEDDING_CACHE_DURATION_SECONDS"])
@pytest.mark.parametrize("text", ["many", "-1", "nan"])
def test_variables_that_make_no_sense(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(ConfigError, match=f"the variable {name} is '{text}'"):
        create_infinity_client()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": "30"}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"embedding_dim": 0}, "embedding_dim"),
        ({"embedding_dim": 2.5}, "embedding_dim"),
        ({"base_url": "localhost:7997"}, "base_url"),
        ({"norm_method": "umap"}, "norm_method"),
        ({"cache_duration_seconds": -1}, "cache_duration_seconds"),
    ],
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        create_infinity_client(**arguments)
    assert raised.value.param == name


def test_from_config(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings objects of faciliter-lib have fields of all providers; each takes its own."""
    config = SimpleNamespace(
        provider="infinity",
        model="my/model",
        embedding_dimension=64,
        api_key="k",
        base_url="http://openai:1/v1",
        infinity_url="http://infinity:1",
        infinity_timeout=4,
        ollama_url=None,
        ollama_host="gpu:9",
        ollama_timeout=5,
        device="cpu",
        cache_duration_seconds=0,
        google_api_key=None,
    )
    infinity: Any = EmbeddingFactory.from_config(config)
    assert (infinity.model, infinity.embedding_dim, infinity.timeout) == ("my/model", 64, 4)
    assert (infinity.base_url, infinity.cache) == ("http://infinity:1", None)
    config.provider = "ollama"
    ollama: Any = EmbeddingFactory.from_config(config)
    assert (ollama.base_url, ollama.timeout) == ("http://gpu:9", 5)
    config.provider = "openai"
    openai: Any = EmbeddingFactory.from_config(config)
    assert (openai.base_url, openai.api_key) == ("http://openai:1/v1", "k")
    config.provider = "local"
    local: Any = EmbeddingFactory.from_config(config)
    assert (local.model, local.device) == ("my/model", "cpu")
    monkeypatch.setenv("EMBEDDING_MODEL", "variable/model")
    assert EmbeddingFactory.from_config().model == "variable/model"
    assert EmbeddingFactory.from_config(SimpleNamespace(provider=None, model="")).model == "variable/model"


def _store(**arguments: Any) -> Any:
    client = create_infinity_client(**arguments)
    return None if client.cache is None else client.cache.store


def test_the_cache(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Argument, `EMBEDDING_CACHE`, `CACHE_BACKEND`, memory."""
    assert isinstance(_store(), MemoryStore)
    monkeypatch.setenv("CACHE_BACKEND", "Redis")
    monkeypatch.setenv("REDIS_HOST", "cache.host")
    monkeypatch.setenv("REDIS_PORT", "7")
    monkeypatch.setenv("REDIS_DB", "3")
    monkeypatch.setenv("REDIS_PASSWORD", "p@ss/word")
    monkeypatch.setenv("EMBEDDING_CACHE_MAX_MB", "3")
    store = _store()
    assert isinstance(store, RedisStore)
    where = store._redis.connection_pool.connection_kwargs
    assert (where["host"], where["port"], where["db"], where["password"]) == ("cache.host", 7, 3, "p@ss/word")
    monkeypatch.setenv("EMBEDDING_CACHE", f"disk:{bare / 'vectors'}")
    with create_infinity_client() as client:
        assert client.cache is not None
        assert isinstance(client.cache.store, DiskStore)
    monkeypatch.setenv("EMBEDDING_CACHE", "None")
    assert _store() is None
    store = _store(cache="memory", cache_duration_seconds=7)
    assert isinstance(store, MemoryStore)
    assert (store._values.maxsize, store._values.ttl) == (3 * 2**20, 7)
    monkeypatch.setenv("EMBEDDING_CACHE_DURATION_SECONDS", "0")
    assert _store(cache="memory") is None
    assert _store(cache=None, cache_duration_seconds=7) is None


def test_an_unknown_cache() -> None:
    with pytest.raises(ConfigError, match="unknown cache 'memcached"):
        create_infinity_client(cache="memcached://host")


def test_clients_of_servers_are_light() -> None:
    program = (
        "import sys; from lemni.client import *; import lemni.client as c\n"
        "c.create_infinity_client(); c.create_ollama_client(); c.create_openai_client(api_key='k')\n"
        "c.create_local_client()\n"
        "heavy = ['pydantic', 'fastapi', 'openvino', 'torch', 'tokenizers', 'PIL', 'redis', 'lemni.engine']\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names() -> None:
    for name in lemni_client.__all__:
        assert getattr(lemni_client, name) is not None
    assert lemni_client.EmbeddingGenerationError.__mro__[1] is lemni_client.ClientError
