"""Runs in the environment `clients`: tei-client over HTTP and over gRPC; prints what each gives, as JSON."""

import json
import sys

import grpc
from tei_client.clients.grpc_client import GrpcClient
from tei_client.clients.http_client import HttpClient

arguments = json.loads(sys.argv[1])
texts = arguments["texts"]


class Keyed(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Puts the key into calls: the client has no argument for it."""

    def intercept_unary_unary(self, continuation, details, request):
        return continuation(details._replace(metadata=[("authorization", f"Bearer {arguments['key']}")]), request)

    intercept_stream_stream = intercept_unary_unary


def asked(client):
    info = client.info()
    return {
        "info": [info.server_model_id, info.server_model_type.value, info.max_input_length],
        "embed": [list(row) for row in client.embed(texts, truncate=True, normalize=True)],
        "embed_all": [[list(row) for row in rows] for rows in client.embed_all(texts[:2])],
        "tokens": [[token.id for token in one.tokens] for one in client.tokenize(texts[:2])],
        "decoded": client.decode([101, 1037, 4937, 102]),
        "prompt_names": client.prompt_names(),
    }


http = HttpClient(arguments["url"], headers={"Authorization": f"Bearer {arguments['key']}"})
found = {"http": asked(http)}

channel = grpc.intercept_channel(grpc.insecure_channel(arguments["target"]), Keyed())
rpc = GrpcClient(arguments["target"])
rpc._stubs = type(rpc._stubs)(channel)
found["grpc"] = asked(rpc)
print(json.dumps(found))
