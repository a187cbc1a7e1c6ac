"""Judge kernels in test files: the pytest plugin and ``@gradref.conforms``."""
