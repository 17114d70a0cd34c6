"""Does a model know what it knows? Confidences, how good they are, and what else would tell as much."""
