"""Bring your own kernel: judge anybody's forward and backward against the truth."""
