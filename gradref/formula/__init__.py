"""What formulas are written with: error-free transformations, and float32 elementary functions."""
