"""Does a model report its own state, or guess from the text? Injections, questions, gates and a verdict."""
