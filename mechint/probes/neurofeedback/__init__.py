"""Neurofeedback: can a model learn, from scores shown to it, to report where its own state lies along an axis?"""
