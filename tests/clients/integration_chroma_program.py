"""Runs in the environment `clients`: lemni.integrations.chroma; prints what it gives, as JSON.

With "opened" it opens the collection that an earlier run has kept in the folder, by its name alone.
"""

import json
import sys

import chromadb

import lemni
from lemni.integrations.chroma import LemniEmbeddingFunction

arguments = json.loads(sys.argv[1])
url, query, documents = arguments["url"], arguments["query"], arguments["documents"]
chroma = chromadb.PersistentClient(arguments["folder"], chromadb.Settings(anonymized_telemetry=False))
ids = [str(place) for place in range(len(documents))]


def found(collection):
    result = collection.query(query_texts=[query], n_results=3, include=["documents", "distances"])
    return [[*pair] for pair in zip(result["documents"][0], result["distances"][0], strict=True)]


def filled(name, function):
    collection = chroma.create_collection(name, embedding_function=function)
    collection.add(ids=ids, documents=documents)
    return collection


def kept(collection):
    vectors = dict(zip(*(collection.get(include=["embeddings"])[key] for key in ("ids", "embeddings")), strict=True))
    return [vectors[place].tolist() for place in ids]


if arguments["opened"]:
    real, sided = chroma.get_collection("real"), chroma.get_collection("sided")
else:
    client = lemni.Client(url, model=arguments["model"])
    real = filled("real", LemniEmbeddingFunction(client=client))
    sided = filled("sided", LemniEmbeddingFunction("sided", url, "secret", options={"dimensions": 16}))
print(
    json.dumps(
        {
            "vectors": [row.tolist() for row in LemniEmbeddingFunction(arguments["model"], url)(arguments["texts"])],
            "found": found(real),
            "found by sides": found(sided),
            "kept": kept(sided),
            "space": real.configuration["hnsw"]["space"],
            "configuration": json.dumps(sided.configuration_json),
        }
    )
)
