"""Each figure of speed, size or cost in the documents, measured on the declared systems: before, after, verdict.

    python benchmarks/claims/run.py [--rows 1000000] [--rounds 5] [--only CLAIM ...] [--out FILE] [--list]

Starts an embedded server of its own with PostgreSQL's and the platform's settings (fsync on), builds the systems by
their own migrations and seeds, lets them grow to ``--rows`` (workflows, reports; the others in proportion), and
removes it at the end. Each comparison takes turns with its other side in every round; figures are medians, a ratio is
the median of the ratios within the rounds. Writes ``results.json`` beside after every claim, in the order of the
documents; with ``--only`` the other claims keep what is written there, so give ``--out`` for a try. Then ``make docs``
brings the figures into docs/systems/claims.md, and the verdicts into the pages of the systems. Linux only: it reads
what processes take from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.claims import (  # noqa: F401
    ap_intake,
    n8n_pools,
    n8n_scraper,
    push,
    restoreassist,
    scribemed,
    scriptsensei,
)
from benchmarks.claims.ground import Ground
from benchmarks.claims.registry import CLAIMS, in_order, shown

RESULTS = Path(__file__).with_name("results.json")
ROWS = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=tuple(CLAIMS), metavar="CLAIM")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--list", action="store_true", help="the claims, and nothing more")
    given = parser.parse_args()
    if given.list:
        for one in in_order():
            print(f"{one.document} {one.id}: {one.claimed}")
        return
    results = {one["id"]: one for one in json.loads(given.out.read_text())["claims"]} if given.out.exists() else {}
    os.environ.pop("DBPLATFORM_LEDGER_URL", None)
    with tempfile.TemporaryDirectory(prefix="claims-", dir="/var/tmp") as home:
        os.environ["DBPLATFORM_HOME"] = home
        # A window of load is long enough for a poll each second to say something; a quick try has short ones.
        ground = Ground(Path(home), rows=given.rows, rounds=given.rounds, seconds=12 if given.rows >= ROWS else 1)
        try:
            about = surroundings(ground)
            for one in in_order():
                if given.only and one.id not in given.only:
                    continue
                begun = time.monotonic()
                measured = one.measure(ground).as_json()
                results[one.id] = {
                    "id": one.id,
                    "system": one.system,
                    "document": one.document,
                    "claimed": one.claimed,
                    **measured,
                    "rows": given.rows,
                    "rounds": given.rounds,
                    "seconds": round(time.monotonic() - begun, 1),
                }
                said = f"{shown(measured['before'], measured['unit'])} -> {shown(measured['after'], measured['unit'])}"
                print(f"{one.id} ({results[one.id]['seconds']:.0f} s): {said}. {measured['verdict']}", flush=True)
                ordered = [results[one.id] for one in in_order() if one.id in results]
                given.out.write_text(json.dumps({"about": about, "claims": ordered}, indent=1) + "\n")
        finally:
            ground.close()


def surroundings(ground: Ground) -> dict[str, Any]:
    """What the figures were measured on."""
    with ground.session("postgres") as connection:
        row = connection.execute(
            "select current_setting('server_version'), current_setting('shared_buffers')"
        ).fetchone()
    assert row is not None
    return {
        "postgresql": row[0],
        "shared_buffers": row[1],
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


if __name__ == "__main__":
    sys.exit(main())
