"""Peers that steer, each in a process of its own: steering-vectors 0.12 and repeng 0.4.

Neither resolves together with mechint (steering-vectors wants transformers < 5, repeng numpy < 2), so they have an
environment of their own, with the same torch and transformers:

    python3 -m venv peers
    peers/bin/pip install torch==2.13.0 transformers==5.23.0 repeng==0.4.0
    peers/bin/pip install --no-deps steering-vectors==0.12.2
    MECHINT_PEERS=peers/bin/python python -m benchmarks decoding fit

Without MECHINT_PEERS they are looked for beside mechint, and left out if they are not there.
`python -m benchmarks.peers PEER TASK` reads a request as JSON from its input and prints the answer; that side must not
import mechint.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

NOT_INSTALLED = 3
PEERS = ("steering-vectors", "repeng")


def ask(peer: str, task: str, **request: Any) -> dict[str, Any] | None:
    """Let a peer do a task; None, and a word on standard error, where it is not installed or fails."""
    python = os.environ.get("MECHINT_PEERS", sys.executable)
    command = [python, "-m", "benchmarks.peers", peer, task]
    try:
        done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=False)
    except OSError as error:
        sys.exit(f"MECHINT_PEERS is {python!r}, which cannot be run ({error}). Name the Python of their environment.")
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if done.returncode == NOT_INSTALLED:
        sys.stderr.write(f"{peer} is not installed here and is left out; benchmarks/peers.py says how.\n")
    else:
        sys.stderr.write(f"{peer} could not be measured: {done.stderr[-400:]}\n")
    return None


def fastest(run: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    """Return the shortest time after one round to warm up, and the result."""
    value, times = run(), list[float]()
    for _ in range(rounds):
        start = time.perf_counter()
        value = run()
        times.append(time.perf_counter() - start)
    return min(times), value


def _model(location: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(location, dtype="float32", attn_implementation="eager").eval()
    return model, AutoTokenizer.from_pretrained(location)


def _writer(request: dict[str, Any], model: Any) -> Callable[[], list[list[int]]]:
    """Write on greedily from ids padded on the left, past any end-of-text token."""
    import torch

    ids, mask = torch.tensor(request["ids"]), torch.tensor(request["mask"])
    endless: dict[str, Any] = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}

    def write() -> list[list[int]]:
        with torch.no_grad():
            out = model.generate(ids, attention_mask=mask, max_new_tokens=request["n"], **endless)
        return out[:, ids.shape[1] :].tolist()

    return write


def decode_with_steering_vectors(request: dict[str, Any]) -> dict[str, Any]:
    """Add a vector to every token (its default), to the last of each pass, or from the first new token on."""
    import torch
    from steering_vectors import SteeringVector

    model, _ = _model(request["location"])
    write = _writer(request, model)
    vector = SteeringVector({request["layer"]: torch.tensor(request["step"])})

    def steered(**where: Any) -> list[list[int]]:
        with vector.apply(model, **where):
            return write()

    seconds, everywhere = fastest(steered, request["rounds"])
    return {
        "seconds": seconds,
        "everywhere": everywhere,
        # Its default of 0 for the other argument counts as given, and is refused.
        "last of each pass": steered(token_indices=slice(-1, None), min_token_index=None),
        "from the first new token": steered(min_token_index=len(request["ids"][0])),
    }


def decode_with_repeng(request: dict[str, Any]) -> dict[str, Any]:
    """Add a vector to every token, the only way that repeng knows."""
    import torch
    from repeng import ControlModel

    controlled = ControlModel(_model(request["location"])[0], [request["layer"]])
    controlled.set_raw_control({request["layer"]: torch.tensor(request["step"])})
    seconds, tokens = fastest(_writer(request, controlled), request["rounds"])
    return {"seconds": seconds, "everywhere": tokens}


def fit_with_steering_vectors(request: dict[str, Any]) -> dict[str, Any]:
    """Return the mean difference at the last token after a block."""
    from steering_vectors import train_steering_vector

    model, tokenizer = _model(request["location"])
    pairs = [(positive, negative) for positive, negative in request["pairs"]]

    def train() -> Any:
        return train_steering_vector(
            model, tokenizer, pairs, layers=[request["layer"]], batch_size=request["batch_size"]
        )

    seconds, vector = fastest(train, request["rounds"])
    return {"seconds": seconds, "mean_diff": vector.layer_activations[request["layer"]].tolist()}


def fit_with_repeng(request: dict[str, Any]) -> dict[str, Any]:
    """Return the principal component of pairs centred at their middle, and of differences centred at their mean."""
    from repeng import ControlVector, DatasetEntry

    model, tokenizer = _model(request["location"])
    entries = [DatasetEntry(positive, negative) for positive, negative in request["pairs"]]

    def train(method: str = "pca_center") -> list[float]:
        settings = {"hidden_layers": [request["layer"]], "batch_size": request["batch_size"], "method": method}
        return ControlVector.train(model, tokenizer, entries, **settings).directions[request["layer"]].tolist()

    seconds, direction = fastest(train, request["rounds"])
    return {"seconds": seconds, "pca_center": direction, "pca_diff": train("pca_diff")}


TASKS: dict[tuple[str, str], Callable[[dict[str, Any]], dict[str, Any]]] = {
    ("steering-vectors", "decode"): decode_with_steering_vectors,
    ("steering-vectors", "fit"): fit_with_steering_vectors,
    ("repeng", "decode"): decode_with_repeng,
    ("repeng", "fit"): fit_with_repeng,
}


if __name__ == "__main__":
    try:
        __import__(sys.argv[1].replace("-", "_"))
    except ModuleNotFoundError as error:
        sys.exit(NOT_INSTALLED if error.name == sys.argv[1].replace("-", "_") else repr(error))
    answer = TASKS[sys.argv[1], sys.argv[2]](json.load(sys.stdin))
    sys.stdout.write(json.dumps(answer) + "\n")
