"""Deploy a reranker: the same command as deploy_infinity.py, for there is one server for all of this.

python examples/deploy_reranker.py --model BAAI/bge-reranker-v2-m3 --port 7997
"""

from __future__ import annotations

from deploy_infinity import deploy

if __name__ == "__main__":
    deploy(__doc__)
