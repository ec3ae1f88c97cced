"""Runs one client in its own environment: a line of JSON on stdin is a list of texts to embed so many at a time, a line
on stdout says what it took. Knows only the standard library, numpy and the client; `benchmarks.client` starts it."""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

IN_FLIGHT = 4
# size: texts of a request, or None for the client's own way with a long list.
Embed = Callable[[list[str], "int | None"], Any]
EmbedAsync = Callable[[list[str], "int | None"], Awaitable[Any]]


def cut(texts: list[str], size: int) -> list[list[str]]:
    return [texts[start : start + size] for start in range(0, len(texts), size)]


async def side_by_side(parts: list[Any], embed: Callable[[Any], Awaitable[Any]]) -> list[Any]:
    """As documentation recommends: some workers that share a list."""
    done: list[Any] = [None] * len(parts)
    numbers = iter(range(len(parts)))

    async def work() -> None:
        for number in numbers:
            done[number] = await embed(parts[number])

    await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return done


def on_a_loop(embed: EmbedAsync) -> Embed:
    loop = asyncio.new_event_loop()
    return lambda texts, size: loop.run_until_complete(embed(texts, size))


def lemni(url: str, model: str) -> Embed:
    import lemni

    clients = {size: lemni.Client(url, model=model, batch_size=size) for size in (1, 16, 128, 512)}
    clients[None] = lemni.Client(url, model=model)
    return lambda texts, size: clients[size].embed(texts)


def lemni_async(url: str, model: str) -> Embed:
    import lemni

    clients = {size: lemni.AsyncClient(url, model=model, batch_size=size) for size in (1, 16, 128, 512)}
    clients[None] = lemni.AsyncClient(url, model=model)
    return on_a_loop(lambda texts, size: clients[size].embed(texts))


def openai(url: str, model: str) -> Embed:
    from openai import OpenAI

    client = OpenAI(base_url=f"{url}/v1", api_key="none")

    def embed(texts: list[str], size: int | None) -> list[list[float]]:
        answers = [client.embeddings.create(model=model, input=part) for part in cut(texts, size or 2048)]
        return [row.embedding for answer in answers for row in answer.data]

    return embed


def openai_async(url: str, model: str) -> Embed:
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none")

    async def embed(texts: list[str], size: int | None) -> list[list[float]]:
        answers = await side_by_side(
            cut(texts, size or 2048), lambda part: client.embeddings.create(model=model, input=part)
        )
        return [row.embedding for answer in answers for row in answer.data]

    return on_a_loop(embed)


def infinity(url: str, model: str) -> Embed:
    from infinity_client import Client
    from infinity_client.api.default import embeddings
    from infinity_client.models import OpenAIEmbeddingInputText

    client = Client(base_url=url)

    def embed(texts: list[str], size: int | None) -> list[list[float]]:
        bodies = [OpenAIEmbeddingInputText(input_=part, model=model) for part in cut(texts, size or 2048)]
        answers = [embeddings.sync(client=client, body=body) for body in bodies]
        return [row.embedding for answer in answers for row in answer.data]

    return embed


def infinity_async(url: str, model: str) -> Embed:
    from infinity_client import Client
    from infinity_client.api.default import embeddings
    from infinity_client.models import OpenAIEmbeddingInputText

    client = Client(base_url=url)

    async def embed(texts: list[str], size: int | None) -> list[list[float]]:
        bodies = [OpenAIEmbeddingInputText(input_=part, model=model) for part in cut(texts, size or 2048)]
        answers = await side_by_side(bodies, lambda body: embeddings.asyncio(client=client, body=body))
        return [row.embedding for answer in answers for row in answer.data]

    return on_a_loop(embed)


def baseten(url: str, model: str) -> Embed:
    from baseten_performance_client import PerformanceClient, RequestProcessingPreference

    client = PerformanceClient(base_url=url, api_key="none")

    def embed(texts: list[str], size: int | None) -> Any:
        if size is None:
            return client.embed(input=texts, model=model).numpy()
        preference = RequestProcessingPreference(batch_size=size, max_concurrent_requests=IN_FLIGHT)
        return client.embed(input=texts, model=model, preference=preference).numpy()

    return embed


def baseten_async(url: str, model: str) -> Embed:
    from baseten_performance_client import PerformanceClient, RequestProcessingPreference

    client = PerformanceClient(base_url=url, api_key="none")

    async def embed(texts: list[str], size: int | None) -> Any:
        if size is None:
            return (await client.async_embed(input=texts, model=model)).numpy()
        preference = RequestProcessingPreference(batch_size=size, max_concurrent_requests=IN_FLIGHT)
        return (await client.async_embed(input=texts, model=model, preference=preference)).numpy()

    return on_a_loop(embed)


def cpu_s() -> float:
    """User and system time of all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    import numpy as np

    name, url, model, dim = *sys.argv[1:4], int(sys.argv[4])
    embed: Embed = globals()[name](url, model)
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        texts, size, alone = order["texts"], order["size"], order["alone"]
        used, start = cpu_s(), time.perf_counter()
        # Alone: a call for each text, one after the other.
        found = [row for text in texts for row in embed([text], 1)] if alone else embed(texts, size)
        wall, as_given = time.perf_counter() - start, cpu_s() - used
        vectors = np.asarray(found, np.float32)
        as_matrix = cpu_s() - used
        assert vectors.shape == (len(texts), dim), vectors.shape
        print(json.dumps({"wall_s": wall, "as_given": as_given, "as_matrix": as_matrix}), flush=True)


if __name__ == "__main__":
    main()
