"""Critique vectors: does a model represent that a step was wrong, and does that direction make it say so?"""
