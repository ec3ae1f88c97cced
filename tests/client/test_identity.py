"""Which model a call is about, so that a cache does not mix up what two of them computed."""

from __future__ import annotations

import orjson
import pytest

from lemni.client import BadAnswer
from lemni.client.identity import Identities
from lemni.client.wire.models import Model
from tests.client.asking import asking
from tests.client.scripted_server import Reply, ok, scripted


def test_the_model_of_a_call_that_names_none() -> None:
    identities = Identities()
    identities.update([Model("m", ("embed", "sparse")), Model("r", ("score",))])
    assert identities.of(None, "embed") == identities.of("m") == Model("m", ("embed", "sparse"))
    assert identities.of(None, "multi_vector") is identities.of(None) is None
    identities.update([Model("m", ("embed",)), Model("n", ("embed",))])
    assert identities.of(None, "embed") is None
    identities.update([Model("m")])
    assert identities.of(None, "embed") == Model("m")


@pytest.mark.parametrize("sync", [True, False], ids=["sync", "async"])
def test_vectors_of_two_models_by_one_name_are_not_mixed(sync: bool) -> None:
    dimensions = 4

    def answer(head: bytes, body: bytes) -> Reply:
        if b"/models" in head:
            return [ok(b'{"data":[{"id":"m"}]}')]
        count = len(orjson.loads(body)["input"])
        return [ok(orjson.dumps({"data": [{"embedding": [1.0] * dimensions}] * count}))]

    with scripted(answer) as server, asking(sync, server.url, cache="memory") as client:
        client.embed(["a"])
        dimensions = 8
        with pytest.raises(BadAnswer, match="clear the cache"):
            client.embed(["a", "b"])
