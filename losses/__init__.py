"""Losses and information measures, their gradients and Hessian products, rounded once.

What is public stands in the ``__all__`` of each family, and only there.
"""

from losses import (
    _chosen_distance,
    _classification,
    _distance,
    _focal,
    _information,
    _language_models,
    _likelihood,
    _linear,
    _margin,
    _multilabel,
    _regression,
    _sequence,
    _similarity,
)
from losses._chosen_distance import *
from losses._classification import *
from losses._distance import *
from losses._focal import *
from losses._information import *
from losses._language_models import *
from losses._likelihood import *
from losses._linear import *
from losses._margin import *
from losses._multilabel import *
from losses._regression import *
from losses._sequence import *
from losses._similarity import *

__all__: list[str] = []
__all__ += _chosen_distance.__all__
__all__ += _classification.__all__
__all__ += _distance.__all__
__all__ += _focal.__all__
__all__ += _information.__all__
__all__ += _language_models.__all__
__all__ += _likelihood.__all__
__all__ += _linear.__all__
__all__ += _margin.__all__
__all__ += _multilabel.__all__
__all__ += _regression.__all__
__all__ += _sequence.__all__
__all__ += _similarity.__all__
