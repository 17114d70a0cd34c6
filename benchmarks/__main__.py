"""`python -m benchmarks [NAME …]`: run the benchmarks, print a table, write `results/bench.json`.

Everything that is compared is measured in this run, on this machine. Leave the machine alone meanwhile: a second busy
process makes a two-thread matrix product many times slower.
"""

import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import capture, cspa, decoding, fit, head_sweep, scan_memory, start_up, static_ranks

BENCHMARKS: dict[str, Callable[[], dict[str, float]]] = {
    "start-up": start_up.measure,
    "head-sweep": head_sweep.measure,
    "scan-memory": scan_memory.measure,
    "cspa": cspa.measure,
    "static-ranks": static_ranks.measure,
    "capture": capture.measure,
    "fit": fit.measure,
    "decoding": decoding.measure,
}


def main(names: list[str]) -> None:
    """Run the named benchmarks, all by default."""
    results: dict[str, dict[str, float]] = {}
    for name in names or list(BENCHMARKS):
        print(f"\n{name}", flush=True)
        results[name] = BENCHMARKS[name]()
        for what, value in results[name].items():
            print(f"  {what:58} {value:12.5g}", flush=True)
    folder = Path("results")
    folder.mkdir(exist_ok=True)
    about = {"torch": torch.__version__, "threads": torch.get_num_threads(), "processor": platform.processor()}
    (folder / "bench.json").write_text(json.dumps({"about": about, "results": results}, indent=2) + "\n")


main(sys.argv[1:])
