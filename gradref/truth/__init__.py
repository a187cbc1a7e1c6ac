"""The truth: declared functions in Arb's ball arithmetic, to any precision, with proved bounds."""
