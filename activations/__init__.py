"""Activation functions and their analytic derivatives, evaluated wide and rounded once.

What is public stands in the ``__all__`` of each family, and only there.
"""

from activations import (
    _gated,
    _gated_units,
    _hard,
    _logarithmic,
    _normalization,
    _piecewise,
    _rowwise,
    _sigmoidal,
    _simplex,
)
from activations._gated import *
from activations._gated_units import *
from activations._hard import *
from activations._logarithmic import *
from activations._normalization import *
from activations._piecewise import *
from activations._rowwise import *
from activations._sigmoidal import *
from activations._simplex import *

__all__: list[str] = []
__all__ += _gated.__all__
__all__ += _gated_units.__all__
__all__ += _hard.__all__
__all__ += _logarithmic.__all__
__all__ += _normalization.__all__
__all__ += _piecewise.__all__
__all__ += _rowwise.__all__
__all__ += _sigmoidal.__all__
__all__ += _simplex.__all__
