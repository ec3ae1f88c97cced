"""Runs an example of the documentation in the environment `clients`; prints what it prints, as JSON."""

import contextlib
import io
import json
import sys

with contextlib.redirect_stdout(io.StringIO()) as printed:
    exec(compile(json.loads(sys.argv[1])["code"], "example", "exec"), {"__name__": "__main__"})
print(json.dumps(printed.getvalue().splitlines()))
