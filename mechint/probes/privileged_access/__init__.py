"""Privileged access: does a model know better than others what it would do, and what it has been made to be like?"""
