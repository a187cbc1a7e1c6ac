"""Look up the derivatives of declared functions, and give them to ``torch.autograd``."""
