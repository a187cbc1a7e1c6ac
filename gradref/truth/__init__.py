"""The truth, by Arb: a declared function in ball arithmetic, to any precision, with its bounds."""
