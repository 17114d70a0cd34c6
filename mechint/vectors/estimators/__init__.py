"""Estimators of directions, one family a module; each is a function of `Samples` at one site, listed in `fit`."""
