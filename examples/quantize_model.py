"""A model in fp32, fp16, bf16 and int8: how large, how fast, how exact. What `lemni quantize` measures and writes.

    python examples/quantize_model.py                                     # compare them
    python examples/quantize_model.py --no-accuracy                       # size, memory and speed alone
    python examples/quantize_model.py --precision int8 -o bge-large-int8  # a folder that lemni and transformers load

What else is given goes to `lemni quantize` as it is: --sts FILE, --retrieval DIR, --plot.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from lemni.cli.app import app


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model", default="BAAI/bge-large-en-v1.5", help="default: %(default)s")
    parser.add_argument("--precision", choices=["fp32", "fp16", "bf16", "int8", "compare"], default="compare")
    parser.add_argument("--no-accuracy", action="store_true", help="compare: no cosines to fp32")
    options, others = parser.parse_known_args()
    arguments = ["quantize", options.model, "--precision", options.precision, *others]
    if options.no_accuracy:
        arguments.append("--no-accuracy")
    if options.precision != "compare" and not {"-o", "--output"} & set(others):
        arguments += ["-o", f"{Path(options.model).name}-{options.precision}"]
    print(shlex.join(["lemni", *arguments]), file=sys.stderr, flush=True)
    app.main(arguments, prog_name="lemni")


if __name__ == "__main__":
    main()
