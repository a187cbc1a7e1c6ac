"""Activation functions and their analytic derivatives, evaluated wide and rounded once.

What is public stands in the ``__all__`` of each family, and only there.
"""

from activations import _gated, _hard, _piecewise, _rowwise, _sigmoidal
from activations._gated import *
from activations._hard import *
from activations._piecewise import *
from activations._rowwise import *
from activations._sigmoidal import *

__all__: list[str] = []
__all__ += _gated.__all__
__all__ += _hard.__all__
__all__ += _piecewise.__all__
__all__ += _rowwise.__all__
__all__ += _sigmoidal.__all__
