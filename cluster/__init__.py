"""Tessera on a changing set of machines, placed, watched and scaled by Ray Serve."""
