"""A model as an ONNX file, to run elsewhere or to look at in Netron. What `lemni export` writes.

    python examples/convert_to_onnx.py
    python examples/convert_to_onnx.py --model ./my-model --output my-model.onnx --max-seq-length 256

What else is given goes to `lemni export` as it is: --pooled, --dtype float16.
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
    parser.add_argument("--output", help="default: the model's name with .onnx")
    parser.add_argument("--max-seq-length", type=int, help="tokens that texts are cut to; of a folder's files")
    options, others = parser.parse_known_args()
    output = options.output or f"{Path(options.model).name}.onnx"
    arguments = ["export", options.model, "--format", "onnx", "-o", output, *others]
    if options.max_seq_length is not None:
        arguments += ["--max-seq-length", str(options.max_seq_length)]
    print(shlex.join(["lemni", *arguments]), file=sys.stderr, flush=True)
    app.main(arguments, prog_name="lemni")


if __name__ == "__main__":
    main()
