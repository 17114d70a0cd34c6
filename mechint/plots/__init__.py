"""Figures: tables in, Plotly out."""
