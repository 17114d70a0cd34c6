"""The key of dimension names: what each word in a shape annotation means.

Every shape in this package, such as `Float[Tensor, "batch pos d_model"]`, uses these words only; a test reads
every annotation and compares.
"""

DIMENSIONS: dict[str, str] = {
    "batch": "rows of one forward pass",
    "pos": "token positions of a row, from its first real token",
    "query": "positions attended from",
    "key": "positions attended to",
    "distance": "distances between query and key, or means over them, side by side",
    "layer": "blocks, from 0",
    "head": "query heads of a block",
    "kv_head": "key/value heads of a block; each serves head/kv_head query heads",
    "d_model": "width of the residual stream",
    "d_head": "width of one head",
    "plane": "pairs of dimensions of a head that rotary position embedding turns",
    "d_mlp": "neurons of one MLP",
    "d_vocab": "entries of the vocabulary",
    "prompt": "prompts of a data set",
    "at": "positions that were asked for",
    "column": "vocabulary entries that were asked for",
    "component": "terms of the residual stream: embedding, heads, biases, MLPs",
    "change": "alternative outputs looked at side by side",
    "key_component": "terms of the stream as the keys of a head see them",
    "row": "sampled vocabulary entries",
    "resample": "draws of a resampling procedure",
    "cluster": "groups of observations that are drawn together",
    "width": "last axis of a site: d_model, d_head or d_mlp",
    "sample": "vectors that an estimator sees: texts x positions",
    "statistic": "numbers estimated side by side",
    "step": "generated tokens, from the first",
    "concept": "concepts that are injected or mentioned",
    "carrier": "texts into which concepts are injected, or that mention them",
    "crossed": "clusters of another kind, each of which meets each cluster",
    "label": "answers that are told apart",
    "sentence": "sentences that are shown, each with a label",
    "shot": "sentences shown with their labels before the one that is asked about",
    "word": "different words of a set of texts",
    "form": "tokens that are forms of one word: capitalised, with a space before them, plural",
}
