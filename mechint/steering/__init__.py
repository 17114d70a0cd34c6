"""Steering: plans of what to change where, the decode loop that carries them out, and receipts of what happened."""
