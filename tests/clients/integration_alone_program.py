"""Runs in the environment `clients`: the client, where nothing can be imported but the standard library, lemni and the
packages that are listed; prints what it gives, as JSON."""

import asyncio
import json
import sys

arguments = json.loads(sys.argv[1])
ALLOWED = {*sys.stdlib_module_names, "lemni", *arguments["packages"]}


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Refuse())

import lemni  # noqa: E402

texts, query, documents = arguments["texts"], arguments["query"], arguments["documents"]


async def asynchronously():
    async with lemni.AsyncClient(arguments["url"], model=arguments["model"]) as client:
        return (await client.embed(texts, progress=True)).tolist()


with lemni.Client(arguments["url"], model=arguments["model"], cache="memory") as client:
    print(
        json.dumps(
            {
                "vectors": client.embed(texts).tolist(),
                "cached": client.embed(texts).tolist(),
                "async": asyncio.run(asynchronously()),
                "ranks": client.rerank(query, documents),
                "similarity": client.similarity(query, documents).tolist(),
                "models": [one.id for one in client.models()],
                "sparse": len(client.sparse([query], model="splade")[0].indices),
                "rows": len(client.multi_vector([query], model="colbert")[0]),
                "labels": len(client.classify(documents, model="ranker")),
                "lemni": sorted({name.split(".")[1] for name in sys.modules if name.startswith("lemni.")}),
            }
        )
    )
