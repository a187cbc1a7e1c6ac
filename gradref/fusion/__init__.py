"""A value and its derivative in one compiled pass."""
