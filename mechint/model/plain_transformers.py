"""The other process of `agreement`: plain transformers, no backend, nothing of this package.

Reads a request as JSON on standard input, and writes the logits of the rows as safetensors.
"""

import json
import sys


def main() -> None:
    """Run the model of a request on its rows, and save float32 logits `[batch, pos, d_vocab]`."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    request = json.load(sys.stdin)
    hf_model = AutoModelForCausalLM.from_pretrained(
        request["location"],
        dtype=getattr(torch, request["dtype"]),
        attn_implementation="eager",
        local_files_only=True,
        trust_remote_code=False,
    ).eval()
    with torch.inference_mode():
        logits = hf_model(torch.tensor(request["rows"]), use_cache=False).logits
    if "transformer_lens" in sys.modules:
        raise RuntimeError("A backend was imported: this comparison would not be independent.")
    save_file({"logits": logits.float().contiguous()}, request["target"])


if __name__ == "__main__":
    main()
