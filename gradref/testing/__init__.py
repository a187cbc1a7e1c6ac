"""Kernels judged in test files: the pytest plugin and ``@gradref.conforms``."""
