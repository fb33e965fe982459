"""`python -m bench [NAME…] [--json]`: run the benchmarks, one after the other, and print what each measured.

Every figure stands beside a peer or a physical ceiling that was measured in the same run, because the machines
are shared and absolute numbers drift.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys

from bench.result import Result, table

BENCHES = ("files", "pipeline", "memory")
"""Of the whole product. `log`, `mapping`, `postgres` and `materialize` measure one part each."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", default=[], help=f"which ones; all of {', '.join(BENCHES)} by default"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable")
    options = parser.parse_args()
    results: list[Result] = []
    for name in options.names or BENCHES:
        found = importlib.import_module(f"bench.{name}").measure()
        results += found
        if not options.json:
            print(table(name, found), flush=True)
    if options.json:
        print(json.dumps([result._asdict() for result in results], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
