"""Runs in the environment `clients`: lemni.integrations.qdrant in Qdrant's local mode; prints what it gives."""

import base64
import json
import sys

from qdrant_client import QdrantClient, models

import lemni
from lemni.integrations.qdrant import LemniVectors

arguments = json.loads(sys.argv[1])
url, query, documents = arguments["url"], arguments["query"], arguments["documents"]
client = lemni.Client(url, model=arguments["model"])
vectors = LemniVectors(client=client, sparse="splade", multi_vector="colbert")
sided = LemniVectors("sided", url, options={"dimensions": 16})
qdrant = QdrantClient(":memory:")


def filled(name, vectors, documents, **more):
    qdrant.create_collection(name, **vectors.collection())
    points = vectors.points(documents, **more)
    qdrant.upsert(name, points)
    return points


def found(name, vectors, using):
    hits = qdrant.query_points(name, query=vectors.query(query, using), using=using, limit=9).points
    return [[one.payload["text"], one.score] for one in hits]


def hybrid():
    prefetch = [models.Prefetch(query=vectors.query(query, using), using=using) for using in ("dense", "sparse")]
    hits = qdrant.query_points(
        "all", prefetch=prefetch, query=vectors.query(query, "multi_vector"), using="multi_vector"
    ).points
    return [[one.payload["text"], one.score] for one in hits]


def error(call):
    try:
        call()
    except lemni.LemniError as raised:
        return str(raised)


points = filled("all", vectors, documents, payloads=[{"place": place} for place in range(3)], ids=[7, 8, 9])
filled("sided", sided, documents)
picture = lemni.Image(base64.b64decode(arguments["picture"]))
images = LemniVectors("clip", url)
size = images.collection()["vectors_config"]["dense"].size
(image,) = images.points([picture])
print(
    json.dumps(
        {
            "vectors": [point.vector["dense"] for point in vectors.points(arguments["texts"])],
            "points": [[point.id, point.payload] for point in points],
            "random ids": len({point.id for point in vectors.points(documents)}),
            "collection": {
                name: config.model_dump(mode="json", exclude_none=True)
                for configs in vectors.collection().values()
                for name, config in configs.items()
            },
            "kinds": {
                name: {using: found(name, one, using) for using in one_of}
                for name, one, one_of in (
                    ("all", vectors, ("dense", "sparse", "multi_vector")),
                    ("sided", sided, ("dense",)),
                )
            },
            "hybrid": hybrid(),
            "distance of sided": sided.collection()["vectors_config"]["dense"].distance,
            "picture": [len(image.vector["dense"]), size, image.payload],
            "none": vectors.points([]),
            "wrong kind": error(lambda: sided.query(query, "sparse")),
            "wrong count": error(lambda: vectors.points(documents, ids=[1])),
            "no kind": error(lambda: LemniVectors(dense=False)),
        }
    )
)
