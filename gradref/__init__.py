"""The toolkit behind ``activations`` and ``losses``: declarations, transforms, truth, verdicts."""
