"""Activations of many texts: recorded in buckets of like length, kept with what they are, summed where too many."""
