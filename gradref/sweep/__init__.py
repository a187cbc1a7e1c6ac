"""Sweeps over every input of float32 and of 16-bit dtypes, and the certificates they end in."""
