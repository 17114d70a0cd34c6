"""The pipeline of "Decoding the Critique Mechanism in Large Reasoning Models" (arXiv 2603.16331), for any model."""
