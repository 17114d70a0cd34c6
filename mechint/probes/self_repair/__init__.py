"""Self-repair on text: how much of a component's loss the rest of the model makes good, at every token of documents."""
