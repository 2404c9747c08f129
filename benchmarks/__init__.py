"""Measurements, printed side by side."""
