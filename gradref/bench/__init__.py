"""Measure speed, as paired ratios: both times of a ratio are of the same round."""
