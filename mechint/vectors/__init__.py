"""Steering vectors: directions with site, dose and provenance; how they are estimated, and how good they are."""
