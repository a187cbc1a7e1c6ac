"""Measuring: inputs to try, errors in ULP, gates, verdicts."""
