"""Losses and information measures, their gradients and Hessian products, rounded once.

What is public stands in the ``__all__`` of each family, and only there.
"""

from losses import _classification, _distance, _information, _likelihood, _margin, _regression
from losses._classification import *
from losses._distance import *
from losses._information import *
from losses._likelihood import *
from losses._margin import *
from losses._regression import *

__all__: list[str] = []
__all__ += _classification.__all__
__all__ += _distance.__all__
__all__ += _information.__all__
__all__ += _likelihood.__all__
__all__ += _margin.__all__
__all__ += _regression.__all__
