"""What happens inside an nnsight trace, written so that it can be sent to where the model is.

nnsight sends functions by their source: a server has torch and nnsight, and neither this package nor jaxtyping. So
everything here is plain: functions, tuples and tensors, no annotations, no classes of ours.

A *place* is `(path, end, columns, n_heads)`: a module; its `input` or `output`, or (`scores`, `pattern`) those of the
softmax inside an attention module; which columns of the last axis are meant, None for all; and into how many heads
they are divided, None where there are no heads.
"""

# pyright: basic

import torch

_AROUND_SOFTMAX = ("scores", "pattern")
_SOFTMAX = "nn_functional_softmax_0"
# The call that leads to the softmax: of an attention module, of GPT-J's, of TransformerLens' patch of Gemma's function.
_CALLS = ("attention_interface_1", "self__attn_0", "_ORIGINAL_EAGER_ATTENTION_FORWARD_0")


def walk(model, entry, steps, end):
    """Visit places in the order in which the model passes them; runs inside a trace.

    Args:
        model: the nnsight model.
        entry: None, or (paths of the blocks to skip, path of the first that runs, the stream that enters it, length of
            a block's output or None where it is a tensor).
        steps: pairs of a place and what to do there: from the activation to a new one, or to None.
        end: None, or (path of the last module that has to run, index of what to return of its output or None).

    Returns:
        What was asked for of the last module's output.
    """
    for (path, which, _, _), _ in steps:
        if which in _AROUND_SOFTMAX:
            _ = model.get(path).source  # a module that runs already could not be looked into any more
    if entry is not None:
        skipped, first, stream, length = entry
        stream = stream.to(next(model.parameters()))
        for path in skipped:
            model.get(path).skip(stream if length is None else (stream, *[None] * (length - 1)))
        if not skipped:
            model.get(first).input = stream
    for (path, which, columns, n_heads), act in steps:
        node = model.get(path)
        if which in _AROUND_SOFTMAX:
            node = softmax(node)
        at_input = which in ("input", "scores")
        whole = node.input if at_input else node.output
        new = act(shown(whole, columns, n_heads))
        if new is not None:
            if at_input:
                node.input = put(whole, columns, n_heads, new)
            else:
                node.output = put(whole, columns, n_heads, new)
    if end is None:
        return None
    path, wanted = end
    found = model.get(path).output
    return None if wanted is None else found[wanted]


def softmax(attention):
    """Return the softmax inside an attention module, through the functions that call it."""
    source = attention.source
    while _SOFTMAX not in source.names:
        source = getattr(source, next((name for name in _CALLS if name in source.names), _SOFTMAX)).source
    return getattr(source, _SOFTMAX)


def shown(whole, columns, n_heads):
    """Take an activation out of what a module passes on."""
    native = whole[0] if isinstance(whole, tuple) else whole
    native = native if columns is None else native[..., columns]
    return native if n_heads is None else native.unflatten(-1, (n_heads, -1))


def put(whole, columns, n_heads, new):
    """Put a new activation into what a module passes on, which is not changed in place."""
    new = new if n_heads is None else new.flatten(-2)
    if columns is not None:
        native = (whole[0] if isinstance(whole, tuple) else whole).clone()
        native[..., columns] = new
        new = native
    return (new, *whole[1:]) if isinstance(whole, tuple) else new


def rewriting(writes, offset, seen):
    """Return what to do at a place of a model that is elsewhere: keep what stands there, then rewrite it.

    It rewrites as `Access` does, but gives no account: that is given afterwards, from what was kept.

    Args:
        writes: tuples (rewrite, tokens [batch, pos], head or None, axis of heads, axis of positions, whether hidden
            entries stay hidden).
        offset: place of each token in its text [batch, pos].
        seen: where to put what stood there.
    """

    def act(value):
        # Interventions hold tensors of the machine they were made on, so they are carried out on its kind of device.
        seen.append(value.detach().to("cpu", copy=True))
        if not writes:
            return None
        new = seen[-1].expand(len(offset), *value.shape[1:]).clone()
        for rewrite, tokens, head, head_axis, axis, hides in writes:
            view = new if head is None else new.select(head_axis, head)
            hidden = (view <= torch.finfo(view.dtype).min / 2) & hides
            old = view.masked_fill(hidden, 0.0)
            chosen = tokens.view(len(tokens), *[1] * (axis - 1), -1, *[1] * (view.ndim - axis - 1)) & ~hidden
            view.copy_(rewrite(old, offset).where(chosen, view))
        return new.to(value.device)

    return act
