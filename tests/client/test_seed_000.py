"""Every block of code in the documentation that the Infinity provider is written for, faciliter-lib's page "Infinity
Embedding Provider", against a live Lemni. Only the import is another, and the ports are those that were free."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lemni import hub
from lemni.client import BaseEmbeddingClient, create_infinity_client
from tests.client.provider_server import BGE, MINILM, Watched
from tests.server.live import free_port

SEED = Path(__file__).parents[3] / "shared" / "seeds"

ENVIRONMENT = """
# Provider selection
EMBEDDING_PROVIDER=infinity

# Model selection
EMBEDDING_MODEL=BAAI/bge-small-en-v1.5

# Infinity server URL (default: http://localhost:7997)
INFINITY_URL=http://localhost:7997
# or
EMBEDDING_BASE_URL=http://localhost:7997

# Request timeout in seconds (default: 30)
INFINITY_TIMEOUT=30
# or
OLLAMA_TIMEOUT=30

# Optional: embedding dimension
EMBEDDING_DIMENSION=384
"""
AUTO_DETECTION = """
from faciliter_lib.embeddings import create_embedding_client

# Set EMBEDDING_PROVIDER=infinity in your environment
client = create_embedding_client()
embedding = client.generate_embedding("Hello, world!")
"""
EXPLICIT = """
from faciliter_lib.embeddings import create_infinity_client

# Create client with defaults
client = create_infinity_client()

# Custom configuration
client = create_infinity_client(
    model="BAAI/bge-small-en-v1.5",
    base_url="http://localhost:7997",
    embedding_dim=384,
    use_l2_norm=True,
    timeout=30
)

# Generate embeddings
embedding = client.generate_embedding("Hello, world!")
print(f"Embedding dimension: {len(embedding)}")

# Batch processing
texts = ["Hello", "World", "Embedding", "Test"]
embeddings = client.generate_embedding(texts)
print(f"Generated {len(embeddings)} embeddings")
"""
FACTORY = """
from faciliter_lib.embeddings import EmbeddingFactory

client = EmbeddingFactory.infinity(
    model="sentence-transformers/all-MiniLM-L6-v2",
    base_url="http://localhost:7997"
)

embedding = client.generate_embedding("Test")
"""
HEALTH = """
client = create_infinity_client()

# Check if server is healthy
if client.health_check():
    print("Infinity server is healthy")
else:
    print("Infinity server is not responding")
"""
MODELS = """
client = create_infinity_client()

# Get list of available models on the server
models = client.get_available_models()
print(f"Available models: {models}")

# Get info about current model
info = client.get_model_info()
print(f"Model info: {info}")
"""
BATCHES = """
   # Good - batch processing
   embeddings = client.generate_embedding(["text1", "text2", "text3", ...])
   
   # Less efficient - individual calls
   for text in texts:
       embedding = client.generate_embedding(text)
"""  # noqa: W293
CACHING = """
   # Subsequent calls with same text return cached results
   embedding1 = client.generate_embedding("Hello")  # Generates
   embedding2 = client.generate_embedding("Hello")  # From cache
"""
ERRORS = """
from faciliter_lib.embeddings import create_infinity_client, EmbeddingGenerationError

client = create_infinity_client()

try:
    embedding = client.generate_embedding("Test text")
except EmbeddingGenerationError as e:
    print(f"Embedding generation failed: {e}")
    # Handle error (retry, fallback, etc.)
"""
INTEGRATION = """
EMBEDDING_PROVIDER=infinity
EMBEDDING_MODEL=BAAI/bge-small-en-v1.5
INFINITY_URL=http://localhost:7997
EMBEDDING_DIMENSION=384
"""
TIMEOUT = """
client = create_infinity_client(timeout=60)
"""
CUSTOM = """
from faciliter_lib.embeddings.infinity_provider import InfinityEmbeddingClient

client = InfinityEmbeddingClient(
    model="BAAI/bge-large-en-v1.5",
    base_url="http://custom-host:7997",
    embedding_dim=1024,
    use_l2_norm=True,
    timeout=60
)
"""
PORT = """
# Infinity on non-standard port
client = create_infinity_client(base_url="http://localhost:8080")
"""
SERVERS = """
# Server 1: Small fast model
client_fast = create_infinity_client(
    model="BAAI/bge-small-en-v1.5",
    base_url="http://localhost:7997"
)

# Server 2: Large quality model
client_quality = create_infinity_client(
    model="BAAI/bge-large-en-v1.5",
    base_url="http://localhost:7998"
)
"""
BLOCKS = [ENVIRONMENT, AUTO_DETECTION, EXPLICIT, FACTORY, HEALTH, MODELS, BATCHES, CACHING, ERRORS, INTEGRATION]
BLOCKS += [TIMEOUT, CUSTOM, PORT, SERVERS]

REFUSED = "Error: Failed to connect to Infinity server at http://localhost:7997"
NOT_FOUND = "Error: Infinity server returned HTTP error: 404"
LATE = "Error: Infinity request timed out after 30s"

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(server: Watched, bare: Path) -> Iterator[Run]:
    """Runs a block, with what the page has imported before, and gives the names that it leaves behind."""
    made: list[dict[str, Any]] = []

    def start(block: str, port: str = server.port, **names: Any) -> dict[str, Any]:
        code = textwrap.dedent(block).replace("faciliter_lib.embeddings", "lemni.client")
        made.append({"create_infinity_client": create_infinity_client, **names})
        exec(code.replace("localhost:7997", f"localhost:{port}"), made[-1])
        return made[-1]

    yield start
    for names in made:
        for one in names.values():
            if isinstance(one, BaseEmbeddingClient):
                one.close()


@pytest.fixture(scope="module")
def reference(minilm: hub.ModelFiles) -> Callable[[list[str]], NDArray[np.float32]]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(minilm.path), device="cpu")
    return lambda texts: np.stack([model.encode([text])[0] for text in texts])


def same(found: Any, expected: NDArray[np.float32]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert type(one) is list
        assert type(one[0]) is float
        np.testing.assert_allclose(one, other, atol=2e-6)


@pytest.mark.skipif(not SEED.is_dir(), reason="the page does not lie beside the repository")
@pytest.mark.parametrize("block", BLOCKS)
def test_the_blocks_are_those_of_the_page(block: str) -> None:
    (page,) = SEED.glob("000*.txt")
    assert block.strip("\n") in page.read_text("utf-8")


@pytest.mark.skipif(not SEED.is_dir(), reason="the page does not lie beside the repository")
def test_no_block_is_left_out() -> None:
    (page,) = SEED.glob("000*.txt")
    written = page.read_text("utf-8").split("```python\n")[1:]
    assert len(written) == len(BLOCKS) - 2  # two are .env files
    for block in written:
        assert block.partition("```")[0].strip() in "".join(BLOCKS)


def test_auto_detection(run: Run, server: Watched, reference: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_PROVIDER", "infinity")
    monkeypatch.setenv("INFINITY_URL", server.url)
    left = run(AUTO_DETECTION)
    same([left["embedding"]], reference(["Hello, world!"]))
    (asked,) = [one for one in server.asked if one.path == "/embeddings"]
    assert asked.body == {"input": ["Hello, world!"], "model": BGE, "encoding_format": "base64"}


@pytest.mark.parametrize("block", [ENVIRONMENT, INTEGRATION])
def test_auto_detection_from_the_env_file(
    run: Run, server: Watched, bare: Path, reference: Any, block: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bare / ".env").write_text(block.replace("localhost:7997", f"localhost:{server.port}"))
    (bare / "below").mkdir()
    monkeypatch.chdir(bare / "below")
    left = run(AUTO_DETECTION)
    client = left["client"]
    assert (client.model, client.base_url) == (BGE, f"http://localhost:{server.port}")
    assert (client.timeout, client.embedding_dim) == (30, 384)
    same([left["embedding"]], reference(["Hello, world!"]))
    (asked,) = [one for one in server.asked if one.path == "/embeddings"]
    assert asked.body["dimensions"] == 384


def test_explicit_configuration(run: Run, server: Watched, reference: Any, capsys: Any) -> None:
    left = run(EXPLICIT)
    assert capsys.readouterr().out == "Embedding dimension: 384\nGenerated 4 embeddings\n"
    same([left["embedding"]], reference(["Hello, world!"]))
    same(left["embeddings"], reference(left["texts"]))
    assert server.inputs == [["Hello, world!"], ["Hello", "World", "Embedding", "Test"]]


def test_the_factory(run: Run, server: Watched, reference: Any) -> None:
    left = run(FACTORY)
    same([left["embedding"]], reference(["Test"]))
    assert [one.body["model"] for one in server.asked if one.path == "/embeddings"] == [MINILM]


def test_health_check(run: Run, server: Watched, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("INFINITY_URL", server.url)
    run(HEALTH)
    assert capsys.readouterr().out == "Infinity server is healthy\n"
    monkeypatch.setenv("INFINITY_URL", f"http://localhost:{free_port()}")
    run(HEALTH)
    assert capsys.readouterr().out == "Infinity server is not responding\n"


def test_available_models(run: Run, server: Watched, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("INFINITY_URL", server.url)
    left = run(MODELS)
    assert left["models"] == [BGE, MINILM]
    assert left["info"].keys() == {"id", "backend", "capabilities", "created", "stats"}
    assert left["info"]["id"] == BGE
    assert "embed" in left["info"]["capabilities"]
    assert capsys.readouterr().out == f"Available models: {left['models']}\nModel info: {left['info']}\n"


def test_batch_processing(run: Run, server: Watched, reference: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFINITY_URL", server.url)
    client = run(HEALTH)["client"]
    more = BATCHES.replace(", ...]", "]")  # the dots stand for more texts
    left = run(more, client=client, texts=["text1", "text4", "text5"])
    same(left["embeddings"], reference(["text1", "text2", "text3"]))
    same([left["embedding"]], reference(["text5"]))
    assert server.inputs == [["text1", "text2", "text3"], ["text4"], ["text5"]]


def test_dots_are_no_text(run: Run, server: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFINITY_URL", server.url)
    with pytest.raises(ValueError, match=r"^Input must be a string or list of strings; item 3 is of type ellipsis$"):
        run(BATCHES, **run(TIMEOUT), texts=[])


def test_caching(run: Run, server: Watched, reference: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFINITY_URL", server.url)
    left = run(CACHING, **run(TIMEOUT))
    assert left["embedding1"] == left["embedding2"]
    same([left["embedding1"]], reference(["Hello"]))
    assert server.inputs == [["Hello"]]
    assert (left["client"].cache.statistics.hits, left["client"].cache.statistics.misses) == (1, 1)


def test_error_handling(run: Run, server: Watched, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("INFINITY_URL", server.url)
    assert len(run(ERRORS)["embedding"]) == 384
    port = str(free_port())
    monkeypatch.setenv("INFINITY_URL", f"http://localhost:{port}")
    assert "embedding" not in run(ERRORS)
    said = REFUSED.removeprefix("Error: ").replace("7997", port)
    assert capsys.readouterr().out.startswith(f"Embedding generation failed: {said}: ")


def test_model_not_found(run: Run, server: Watched, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("INFINITY_URL", server.url)
    monkeypatch.setenv("EMBEDDING_MODEL", "YOUR_MODEL_NAME")
    run(ERRORS)
    said = capsys.readouterr().out
    assert said.startswith(f"Embedding generation failed: {NOT_FOUND.removeprefix('Error: ')} ")
    assert "lemni serve YOUR_MODEL_NAME --port" in said
    assert BGE in said
    assert MINILM in said


def test_timeout(run: Run, server: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFINITY_URL", server.url)
    client = run(TIMEOUT)["client"]
    assert client.timeout == 60
    assert len(client.generate_embedding("In time")) == 384


def test_custom_configuration(run: Run, server: Watched) -> None:
    client = run(CUSTOM)["client"]
    assert (client.model, client.base_url) == ("BAAI/bge-large-en-v1.5", "http://custom-host:7997")
    assert (client.embedding_dim, client.use_l2_norm, client.timeout) == (1024, True, 60)
    there = CUSTOM.replace("custom-host:7997", "localhost:7997").replace("bge-large", "bge-small")
    vector = run(there)["client"].generate_embedding("The model here has 384 values.")
    assert len(vector) == 1024
    np.testing.assert_allclose(np.linalg.norm(vector), 1, atol=1e-6)


def test_another_port(run: Run, server: Watched) -> None:
    assert run(PORT)["client"].base_url == "http://localhost:8080"
    client = run(PORT.replace("8080", server.port))["client"]
    assert len(client.generate_embedding("Test")) == 384


def test_several_servers(run: Run, server: Watched) -> None:
    left = run(SERVERS)
    fast, quality = left["client_fast"], left["client_quality"]
    assert (quality.model, quality.base_url) == ("BAAI/bge-large-en-v1.5", "http://localhost:7998")
    assert len(fast.generate_embedding("Test")) == 384
