"""The gRPC API with real clients, made of the generated stubs: HTTP's numbers, streams, errors, the key."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from lemni import hub
from lemni.config import EngineSettings, MediaSettings
from lemni.engine import Engine
from lemni.errors import MissingExtra
from lemni.server.app import create_app
from lemni.server.grpc import calls, check_installed
from lemni.server.grpc import tei_pb2 as pb
from lemni.server.grpc import tei_pb2_grpc as stubs
from lemni.server.grpc.server import GrpcServer
from lemni.server.service import Service
from tests.engine.toy import Gate, ToyModel, engine_of, request
from tests.server.conftest import client_of
from tests.server.live import PATIENCE_S, ServerProcess, free_port, loaded, server_settings
from tests.tasks.classifiers import load, save_classifier
from tests.tasks.sparse_models import splade

CATS = ["A cat sits on the mat.", "Die Börse fiel.", "", "Cats sleep on the sofa."]
LEFT = pb.TRUNCATION_DIRECTION_LEFT


@contextlib.asynccontextmanager
async def channel_of(engine: Engine, **settings: Any) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server over the engine."""
    service = Service(server_settings(grpc_port=0, **settings), 600, MediaSettings())
    service.attach(engine, loaded(engine).models)
    server = GrpcServer(service)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield channel
    finally:
        await server.stop(0)


@pytest.fixture
async def channel(real_engine: Engine) -> AsyncIterator[grpc.aio.Channel]:
    """Of a server over the real default model that takes 8 items at most."""
    async with channel_of(real_engine, max_items=8) as channel:
        yield channel


async def refused(call: Any, code: grpc.StatusCode) -> str:
    """The message of an error."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    assert error.value.code() == code, error.value.details()
    details: str = error.value.details()
    return details


async def collected(answers: Any) -> list[Any]:
    return [answer async for answer in answers]


async def over_http(real: httpx.AsyncClient, path: str, **body: Any) -> Any:
    return (await real.post(path, json=body)).json()


class TestEmbed:
    async def test_one_text(self, channel: grpc.aio.Channel, real: httpx.AsyncClient) -> None:
        stub = stubs.EmbedStub(channel)
        for text in CATS:
            for normalize in (True, False):
                [expected] = await over_http(real, "/embed", inputs=text, normalize=normalize)
                answer = await stub.Embed(pb.EmbedRequest(inputs=text, normalize=normalize))
                np.testing.assert_allclose(answer.embeddings, expected, atol=1e-5)
        assert (answer.metadata.compute_chars, answer.metadata.compute_tokens) == (23, 8)
        assert answer.metadata.total_time_ns > 0

    async def test_truncation(self, channel: grpc.aio.Channel) -> None:
        stub = stubs.EmbedStub(channel)
        start, end = "alpha " * 300, "omega " * 300
        long = pb.EmbedRequest(inputs=start + end, truncation_direction=LEFT)
        assert "at most 256" in await refused(stub.Embed(long), grpc.StatusCode.INVALID_ARGUMENT)
        for direction, text in ((LEFT, end), (pb.TRUNCATION_DIRECTION_RIGHT, start)):
            cut = await stub.Embed(pb.EmbedRequest(inputs=start + end, truncate=True, truncation_direction=direction))
            same = await stub.Embed(pb.EmbedRequest(inputs=text, truncate=True))
            np.testing.assert_allclose(cut.embeddings, same.embeddings, atol=1e-4)

    async def test_every_token(self, channel: grpc.aio.Channel, real: httpx.AsyncClient) -> None:
        expected = await over_http(real, "/embed_all", inputs=CATS)
        requests = [pb.EmbedAllRequest(inputs=text) for text in CATS]
        stub = stubs.EmbedStub(channel)
        answers = [await stub.EmbedAll(requests[0]), *await collected(stub.EmbedAllStream(iter(requests)))]
        for answer, matrix in zip(answers, [expected[0], *expected], strict=True):
            found = [list(token.embeddings) for token in answer.token_embeddings]
            np.testing.assert_allclose(found, matrix, atol=1e-4)

    async def test_a_model_that_gives_no_terms(self, channel: grpc.aio.Channel) -> None:
        stub = stubs.EmbedStub(channel)
        call = stub.EmbedSparse(pb.EmbedSparseRequest(inputs="a"))
        assert "sparse" in await refused(call, grpc.StatusCode.UNIMPLEMENTED)
        stream = stub.EmbedSparseStream(iter([pb.EmbedSparseRequest(inputs="a")]))
        await refused(collected(stream), grpc.StatusCode.UNIMPLEMENTED)


async def test_terms(tmp_path: Path) -> None:
    reference = splade(tmp_path)
    model = load(tmp_path, served_name="terms")
    texts = ["the cat sat", "", "stocks fell again"]
    requests = [pb.EmbedSparseRequest(inputs=text) for text in texts]
    expected = reference.encode(texts, convert_to_sparse_tensor=False, convert_to_tensor=True).numpy()
    with Engine({"terms": model}, EngineSettings()) as engine:
        async with channel_of(engine) as channel:
            stub = stubs.EmbedStub(channel)
            answers = [await stub.EmbedSparse(requests[0]), *await collected(stub.EmbedSparseStream(iter(requests)))]
    model.close()
    for answer, row in zip(answers, [expected[0], *expected], strict=True):
        found = answer.sparse_embeddings
        assert [one.index for one in found] == np.nonzero(row)[0].tolist()
        np.testing.assert_allclose([one.value for one in found], row[row != 0], atol=1e-4)


class TestStreams:
    async def test_answers_come_in_order(self, channel: grpc.aio.Channel) -> None:
        """More messages than are computed at a time."""
        stub = stubs.EmbedStub(channel)
        alone = {text: (await stub.Embed(pb.EmbedRequest(inputs=text))).embeddings for text in CATS}
        texts = [CATS[(7 * at) % 4] for at in range(300)]
        answers = await collected(stub.EmbedStream(iter([pb.EmbedRequest(inputs=text) for text in texts])))
        assert len(answers) == 300
        for text, answer in zip(texts, answers, strict=True):
            np.testing.assert_allclose(answer.embeddings, alone[text], atol=1e-5)

    async def test_an_answer_comes_before_the_next_message(self, channel: grpc.aio.Channel) -> None:
        call = stubs.EmbedStub(channel).EmbedStream()
        for text in CATS:
            await call.write(pb.EmbedRequest(inputs=text))
            assert len((await call.read()).embeddings) == 384
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF

    async def test_the_first_error_ends_it(self, channel: grpc.aio.Channel) -> None:
        requests = [pb.EmbedRequest(inputs=text) for text in ("a", "word " * 999, "b", "word " * 999)]
        call = stubs.EmbedStub(channel).EmbedStream(iter(requests))
        assert len((await call.read()).embeddings) == 384
        assert "at most 256" in await refused(call.read(), grpc.StatusCode.INVALID_ARGUMENT)

    async def test_answers_that_nobody_reads_do_not_pile_up(
        self, channel: grpc.aio.Channel, real_engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(calls, "_STREAM_REQUESTS", 2)

        def computed() -> int:
            [status] = real_engine.status().values()
            return status.items

        before = computed()
        call = stubs.EmbedStub(channel).EmbedAllStream()
        writing = asyncio.create_task(self._write(call, [pb.EmbedAllRequest(inputs="word " * 250)] * 40))
        await until(lambda: computed() > before)
        found = 0
        while (now := computed()) > found:
            found = now
            await asyncio.sleep(0.5)
        assert found - before < 30  # some of 390 kB each are in the transport's buffers
        await writing
        assert [len((await call.read()).token_embeddings) for _ in range(40)] == [252] * 40
        assert await call.read() is grpc.aio.EOF

    @staticmethod
    async def _write(call: Any, messages: list[Any]) -> None:
        for message in messages:
            await call.write(message)
        await call.done_writing()

    async def test_no_messages(self, channel: grpc.aio.Channel) -> None:
        assert await collected(stubs.EmbedStub(channel).EmbedStream(iter([]))) == []

    @pytest.mark.parametrize("unary", [True, False])
    async def test_a_caller_who_goes_away_frees_the_queue(self, toy: ToyModel, unary: bool) -> None:
        toy.gates[9] = gate = Gate()
        with engine_of(toy) as engine:
            held = engine.submit("toy", request("9"))
            gate.wait_entered()
            async with channel_of(engine) as channel:
                stub = stubs.EmbedStub(channel)
                one = pb.EmbedRequest(inputs="5")
                call = stub.Embed(one) if unary else stub.EmbedStream(iter([one, one]))
                asking = asyncio.ensure_future(call if unary else collected(call))
                await until(lambda: engine.status()["toy"].open_requests == (2 if unary else 3))
                call.cancel()
                await until(lambda: engine.status()["toy"].open_requests == 1)
                with pytest.raises(asyncio.CancelledError):
                    await asking
            gate.open()
            held.result(PATIENCE_S)


async def until(condition: Any) -> None:
    for _ in range(int(PATIENCE_S / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    pytest.fail("it did not happen")


class TestRerank:
    QUERY = "Where do cats sleep?"

    async def test_as_over_http(self, channel: grpc.aio.Channel, real: httpx.AsyncClient) -> None:
        expected = await over_http(real, "/rerank", query=self.QUERY, texts=CATS)
        stub = stubs.RerankStub(channel)
        plain = await stub.Rerank(pb.RerankRequest(query=self.QUERY, texts=CATS))
        shown = await stub.Rerank(pb.RerankRequest(query=self.QUERY, texts=CATS, return_text=True))
        messages = [pb.RerankStreamRequest(query=self.QUERY, text=text, return_text=text == CATS[0]) for text in CATS]
        streamed = await stub.RerankStream(iter(messages))
        for answer in (plain, shown, streamed):
            assert [rank.index for rank in answer.ranks] == [one["index"] for one in expected]
            scores = [one["score"] for one in expected]
            np.testing.assert_allclose([rank.score for rank in answer.ranks], scores, atol=1e-5)
        assert not plain.ranks[0].HasField("text")
        for answer in (shown, streamed):
            assert [rank.text for rank in answer.ranks] == [CATS[rank.index] for rank in answer.ranks]

    async def test_limits(self, channel: grpc.aio.Channel) -> None:
        stub = stubs.RerankStub(channel)
        messages = iter([pb.RerankStreamRequest(query="a", text="b")] * 9)
        for call in (stub.Rerank(pb.RerankRequest(query="a", texts=["b"] * 9)), stub.RerankStream(messages)):
            message = await refused(call, grpc.StatusCode.INVALID_ARGUMENT)
            assert message == "batch size 9 > maximum allowed batch size 8"
        for call in (stub.Rerank(pb.RerankRequest(query="a")), stub.RerankStream(iter([]))):
            assert "empty" in await refused(call, grpc.StatusCode.INVALID_ARGUMENT)

    async def test_a_stream_is_no_larger_than_a_body(self, real_engine: Engine) -> None:
        messages = [pb.RerankStreamRequest(query="a", text="b" * 700)] * 2
        async with channel_of(real_engine, max_body_mib=0.001) as channel:
            stub = stubs.RerankStub(channel)
            messages[0].truncate = True
            assert len((await stub.RerankStream(iter(messages[:1]))).ranks) == 1
            assert "max_body_mib" in await refused(stub.RerankStream(iter(messages)), grpc.StatusCode.INVALID_ARGUMENT)


class TestTokenize:
    async def test_as_over_http(self, channel: grpc.aio.Channel, real: httpx.AsyncClient) -> None:
        stub = stubs.TokenizeStub(channel)
        requests = [pb.EncodeRequest(inputs=text, add_special_tokens=True) for text in CATS]
        answers = [await stub.Tokenize(requests[0]), *await collected(stub.TokenizeStream(iter(requests)))]
        expected = await over_http(real, "/tokenize", inputs=CATS)
        for answer, tokens in zip(answers, [expected[0], *expected], strict=True):
            for ours, token in zip(answer.tokens, tokens, strict=True):
                assert (ours.id, ours.text, ours.special) == (token["id"], token["text"], token["special"])
                assert ours.HasField("start") == (not ours.special) == (token["start"] is not None)
                assert (ours.start, ours.stop) == (token["start"] or 0, token["stop"] or 0)
        plain = await stub.Tokenize(pb.EncodeRequest(inputs="a cat"))
        assert [token.id for token in plain.tokens] == [1037, 4937]

    async def test_decode(self, channel: grpc.aio.Channel) -> None:
        stub = stubs.TokenizeStub(channel)
        shown = pb.DecodeRequest(ids=[101, 1037, 4937, 102])
        hidden = pb.DecodeRequest(ids=[101, 1037, 4937, 102], skip_special_tokens=True)
        assert (await stub.Decode(shown)).text == "[CLS] a cat [SEP]"
        answers = await collected(stub.DecodeStream(iter([hidden, shown])))
        assert [answer.text for answer in answers] == ["a cat", "[CLS] a cat [SEP]"]
        wrong = stub.Decode(pb.DecodeRequest(ids=[40000]))
        assert "40000" in await refused(wrong, grpc.StatusCode.FAILED_PRECONDITION)

    async def test_an_unknown_prompt_lists_the_known(self, channel: grpc.aio.Channel) -> None:
        call = stubs.TokenizeStub(channel).Tokenize(pb.EncodeRequest(inputs="a", prompt_name="$"))
        assert "Available prompts: []" in await refused(call, grpc.StatusCode.INVALID_ARGUMENT)


@pytest.fixture(scope="module")
def tiny_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A tiny classifier and a tiny reranker."""
    models = {}
    for name, labels in (("labels", 3), ("ranker", 1)):
        folder: Path = tmp_path_factory.mktemp(name)
        save_classifier(folder, "bert", labels)
        models[name] = load(folder, served_name=name)
    with Engine(models, EngineSettings()) as engine:
        yield engine
    for model in models.values():
        model.close()


class TestPredict:
    async def test_texts_and_pairs(self, tiny_engine: Engine) -> None:
        async with (
            channel_of(tiny_engine) as channel,
            client_of(create_app(loaded(tiny_engine), server_settings())) as http,
        ):
            stub, model = stubs.PredictStub(channel), (("model", "labels"),)
            texts, pair = ["hello", "world", "hello"], ["the cat", "sat on the mat"]
            one = await stub.Predict(pb.PredictRequest(inputs=texts[0]), metadata=model)
            many = await collected(
                stub.PredictStream(iter([pb.PredictRequest(inputs=text) for text in texts]), metadata=model)
            )
            both = await stub.PredictPair(pb.PredictPairRequest(inputs=pair, raw_scores=True), metadata=model)
            [again] = await collected(
                stub.PredictPairStream(iter([pb.PredictPairRequest(inputs=pair, raw_scores=True)]), metadata=model)
            )
            body = {"model": "labels", "raw_scores": False, "inputs": [[text] for text in texts]}
            expected = (await http.post("/predict", json=body)).json()
            [raw] = (await http.post("/predict", json={**body, "inputs": [pair], "raw_scores": True})).json()
            answers = [(one, expected[0]), *zip(many, expected, strict=True), (both, raw), (again, raw)]
            for answer, labels in answers:
                assert [found.label for found in answer.predictions] == [label["label"] for label in labels]
                scores = [label["score"] for label in labels]
                np.testing.assert_allclose([found.score for found in answer.predictions], scores, atol=1e-5)
            wrong = stub.PredictPair(pb.PredictPairRequest(inputs=["a"]), metadata=model)
            assert "a pair has two" in await refused(wrong, grpc.StatusCode.INVALID_ARGUMENT)

    async def test_an_embedding_model_does_not(self, channel: grpc.aio.Channel) -> None:
        call = stubs.PredictStub(channel).Predict(pb.PredictRequest(inputs="a"))
        assert "classification" in await refused(call, grpc.StatusCode.UNIMPLEMENTED)


class TestInfo:
    async def test_limits(self, channel: grpc.aio.Channel) -> None:
        info = await stubs.InfoStub(channel).Info(pb.InfoRequest())
        assert info.model_id == "sentence-transformers/all-MiniLM-L6-v2"
        assert (info.model_type, info.model_dtype) == (pb.MODEL_TYPE_EMBEDDING, "float32")
        assert (info.max_input_length, info.max_client_batch_size) == (256, 8)
        assert not info.HasField("sha")

    async def test_kinds_of_models_and_their_names(self, tiny_engine: Engine) -> None:
        async with channel_of(tiny_engine) as channel:
            stub = stubs.InfoStub(channel)
            for name, kind in (("labels", pb.MODEL_TYPE_CLASSIFIER), ("ranker", pb.MODEL_TYPE_RERANKER)):
                info = await stub.Info(pb.InfoRequest(), metadata=(("model", name),))
                assert info.model_type == kind
            wrong = stub.Info(pb.InfoRequest(), metadata=(("model", "nothing"),))
            assert "labels, ranker" in await refused(wrong, grpc.StatusCode.NOT_FOUND)

    async def test_reflection(self, real_engine: Engine) -> None:
        """Without the key: clients ask before they send it."""
        async with channel_of(real_engine, api_key="sk") as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            ask = reflection_pb2.ServerReflectionRequest(list_services="")
            [answer] = await collected(stub.ServerReflectionInfo(iter([ask])))
            names = {service.name for service in answer.list_services_response.service}
            assert {f"tei.v1.{name}" for name in ("Info", "Embed", "Predict", "Rerank", "Tokenize")} <= names


class TestErrors:
    async def test_the_key(self, toy_engine: Engine) -> None:
        async with channel_of(toy_engine, api_key="sk") as channel:
            stub, asked = stubs.EmbedStub(channel), pb.EmbedRequest(inputs="1")
            for metadata in ((), (("authorization", "Bearer no"),), (("authorization", ""),)):
                await refused(stub.Embed(asked, metadata=metadata), grpc.StatusCode.UNAUTHENTICATED)
                stream = stub.EmbedStream(iter([asked]), metadata=metadata)
                await refused(collected(stream), grpc.StatusCode.UNAUTHENTICATED)
            for value in ("Bearer sk", "sk"):
                assert (await stub.Embed(asked, metadata=(("authorization", value),))).embeddings

    async def test_a_full_queue(self, toy: ToyModel) -> None:
        toy.gates[9] = gate = Gate()
        with engine_of(toy, max_queue_tokens=20) as engine:
            held = [engine.submit("toy", request("9"))]
            gate.wait_entered()
            held.append(engine.submit("toy", request("1 " * 18)))
            async with channel_of(engine) as channel:
                call = stubs.EmbedStub(channel).Embed(pb.EmbedRequest(inputs="5 5 5"))
                await refused(call, grpc.StatusCode.RESOURCE_EXHAUSTED)
            gate.open()
            for one in held:
                one.result(PATIENCE_S)

    async def test_a_failed_computation_hides_its_text(self, toy: ToyModel, toy_engine: Engine) -> None:
        toy.raises = {13}
        async with channel_of(toy_engine) as channel:
            call = stubs.EmbedStub(channel).Embed(pb.EmbedRequest(inputs="13"))
            assert "cannot compute" not in await refused(call, grpc.StatusCode.INTERNAL)

    async def test_a_draining_engine(self, toy_engine: Engine) -> None:
        async with channel_of(toy_engine) as channel:
            toy_engine.drain(0)
            call = stubs.EmbedStub(channel).Embed(pb.EmbedRequest(inputs="1"))
            await refused(call, grpc.StatusCode.UNAVAILABLE)


class TestProcess:
    """The whole server."""

    @pytest.fixture
    def start(self, tmp_path: Path, minilm: hub.ModelFiles) -> Iterator[Any]:
        started: list[ServerProcess] = []

        def begin(**server: Any) -> ServerProcess:
            models = [{"model": str(minilm.path), "served_name": "minilm", "device": "cpu"}]
            settings = {"models": models, "server": {"port": 0, **server}, "engine": {"threads": 1}}
            started.append(ServerProcess(json.dumps(settings), tmp_path))
            return started[-1]

        yield begin
        for process in started:
            process.close()

    async def test_a_running_stream_is_answered_before_it_ends(self, start: Any) -> None:
        port = free_port()
        server = start(grpc_port=port)
        assert server.announcement().startswith("Lemni is ready")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = stubs.EmbedStub(channel)
            call = stub.EmbedStream()
            for at in range(60):
                await call.write(pb.EmbedRequest(inputs=f"{at} " + "word " * 200))
            first = await call.read()
            server.terminate()
            await call.done_writing()
            answers = [first, *[await call.read() for _ in range(59)]]
            assert [len(answer.embeddings) for answer in answers] == [384] * 60
            await refused(stub.Embed(pb.EmbedRequest(inputs="a")), grpc.StatusCode.UNAVAILABLE)
        code, errors = server.wait()
        assert code == 0
        assert errors.splitlines()[1:] == []  # the first says where gRPC listens
        assert f"gRPC (tei.v1) on 127.0.0.1 port {port}" in errors

    def test_a_busy_port_is_one_line(self, start: Any) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            code, errors = start(grpc_port=port).wait()
        assert code == 1
        assert errors == (
            f"ConfigError: port {port} on 127.0.0.1 is in use; choose another with --grpc-port, or 0 for any\n"
        )


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(check_installed.__globals__, "_PACKAGES", {"grpc_nothing.here": "grpcio-nothing"})
    with pytest.raises(MissingExtra, match=r"grpc_port needs the package 'grpcio-nothing'.*lemni\[grpc\]"):
        check_installed()
