"""Time from a bare interpreter to `import mechint`, to `mechint --help`, and to a loaded model; fresh processes."""

import statistics
import subprocess
import sys
import time

_LOAD = "import time, mechint as mi; mi.Model; import mechint.model.loading, mechint.model.transformer_lens; "
_LOAD += "t = time.perf_counter(); mi.load('gemma3-270m'); print(time.perf_counter() - t)"


def _wall(*command: str, repeats: int = 5) -> float:
    times: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure() -> dict[str, float]:
    """Return medians in seconds."""
    bare = _wall("-c", "pass")
    loads = [
        float(subprocess.run([sys.executable, "-c", _LOAD], check=True, capture_output=True, text=True).stdout)
        for _ in range(3)
    ]
    return {
        "import mechint over bare Python, s": _wall("-c", "import mechint") - bare,
        "mechint --help, s": _wall("-m", "mechint", "--help"),
        "load gemma3-270m from the cache, s": statistics.median(loads),
        "the same with all imports in a fresh process, s": _wall(
            "-c", "import mechint as mi; mi.load('gemma3-270m')", repeats=3
        ),
    }
