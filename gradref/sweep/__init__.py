"""Sweeps over every float32 input, and the certificates that they end in."""
