"""Derivatives of declared functions by look-up, and the same behind ``torch.autograd``."""
