"""Peak memory of a scan above the loaded model, for growing numbers of prompts, and its time (Linux)."""

import json
import subprocess
import sys
import time
from pathlib import Path

COUNTS = (16, 64)


def scan(n: int) -> None:
    """Scan with n prompts, and print memory and time as JSON: meant for a process of its own."""
    import mechint as mi
    from mechint.effects import attribution

    def memory(field: str) -> float:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(field)) / 2**20

    model = mi.load("gemma3-270m")
    attribution.require_exact(model)
    loaded = memory("VmRSS:")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the high-water mark begins anew
    start = time.perf_counter()
    mi.copy_suppression(model, mi.prompts.ioi(n=n, tokenizer=model.tokenizer), progress=False)
    sys.stdout.write(json.dumps({"loaded": loaded, "peak": memory("VmHWM:"), "seconds": time.perf_counter() - start}))


def measure() -> dict[str, float]:
    """Return GiB above the loaded model and seconds, by number of prompts."""
    found: dict[str, float] = {}
    for n in COUNTS:
        run = subprocess.run(
            [sys.executable, "-m", "benchmarks.scan_memory", str(n)], check=True, capture_output=True, text=True
        )
        answer = json.loads(run.stdout)
        found[f"scan of {n} prompts: memory above the model, GiB"] = answer["peak"] - answer["loaded"]
        found[f"scan of {n} prompts, s"] = answer["seconds"]
    return found


if __name__ == "__main__":
    scan(int(sys.argv[1]))
