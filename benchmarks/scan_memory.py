"""Peak memory of a scan above the loaded model, for growing numbers of prompts, and its time; fresh processes."""

import json
import subprocess
import sys
import time

COUNTS = (16, 64)


def scan(n: int) -> None:
    """Scan with n prompts, and print memory and time as JSON: meant for a process of its own."""
    import resource

    import mechint as mi
    from mechint.effects import attribution

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    model = mi.load("gemma3-270m")
    attribution.require_exact(model)
    loaded = peak()
    start = time.perf_counter()
    mi.copy_suppression(model, mi.prompts.ioi(n=n, tokenizer=model.tokenizer), progress=False)
    sys.stdout.write(json.dumps({"loaded": loaded, "peak": peak(), "seconds": time.perf_counter() - start}))


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
