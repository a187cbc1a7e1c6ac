r"""Losses as objectives of gradient boosting: gradient and Hessian diagonal by the raw scores.

XGBoost and LightGBM fit every tree to the gradient g and the Hessian diagonal h of a loss summed
over the rows; a leaf of rows I gets the value :math:`-\sum_I g / (\sum_I h + \lambda)`. Both call
an objective in one of two ways, which are the two functions here::

    xgboost.train({"objective": "reg:pseudohubererror"}, data, obj=train_objective(loss))
    lightgbm.train({"objective": train_objective(loss)}, data)

    XGBRegressor(objective=sklearn_objective(loss))
    LGBMRegressor(objective=sklearn_objective(loss))

``docs/boosting.md`` says which loss grows the trees of which built-in objective.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from gradref.arrays import describe, reject
from gradref.autodiff.lookup import base
from gradref.declare.operation import Operation

__all__ = ["sklearn_objective", "train_objective"]

Array = NDArray[Any]
Loss = Callable[..., Any]
Hessian = Literal["exact", "ones"]


class Dataset(Protocol):
    """What is asked of XGBoost's ``DMatrix`` and LightGBM's ``Dataset``."""

    def get_label(self) -> Any:
        """Return the targets."""
        ...

    def get_weight(self) -> Any:
        """Return the weights of the rows; without any XGBoost's are empty, LightGBM's None."""
        ...


def train_objective(
    loss: Loss, *, hessian: Hessian = "exact", hessian_scale: float = 1.0, **parameters: Any
) -> Callable[[Array, Any], tuple[Array, Array]]:
    """Return ``f(preds, data)``, an objective of ``xgboost.train`` and of ``lightgbm.train``.

    It takes targets and weights from ``data``; all else is as in :func:`sklearn_objective`.

    An objective that XGBoost's parameters name as well still decides what ``base_score`` means,
    what ``predict`` makes of a score, which metric is shown and whether leaves are fitted anew; it
    is ``reg:squarederror`` by default. Neither library looks for a start: XGBoost's is
    ``base_score``, else ½, LightGBM's ``init_score``, else 0, and its ``predict`` returns scores.

    >>> from losses import quantile_loss
    >>> train_objective(quantile_loss, tau=0.9)
    Traceback (most recent call last):
    ValueError: tau: got float 0.9, wants a parameter of quantile_loss: quantile
    """
    objective = sklearn_objective(loss, hessian=hessian, hessian_scale=hessian_scale, **parameters)
    return functools.partial(_of_dataset, objective)


def sklearn_objective(
    loss: Loss, *, hessian: Hessian = "exact", hessian_scale: float = 1.0, **parameters: Any
) -> Callable[..., tuple[Array, Array]]:
    r"""Return ``f(y_true, y_pred, sample_weight=None)``, an objective of estimators.

    .. math:: g_i = w_i\,\frac{\partial \ell}{\partial x_i}, \qquad
              h_i = c\,w_i\,\frac{\partial^2 \ell}{\partial x_i^2}

    for raw scores x and row weights w, which neither library applies to what an objective returns.
    c is ``hessian_scale``. ``parameters`` are those of ``loss``, arrays among them NumPy arrays.

    ``hessian="ones"`` has 1 for the second derivative. Where that is 0, as for ``l1_loss`` and
    ``quantile_loss``, there is no Newton step: no tree would grow, so that "exact" raises an error
    when a score has a gradient and none a Hessian. With "ones" a step is one of gradient descent;
    the libraries' own objectives for these losses then fit each leaf anew, to a quantile of its
    residuals, which only XGBoost does for other objectives (see :func:`train_objective`). A second
    derivative below 0, of a loss that is not convex, is passed on.

    Scores have shape (N), or (N, K) for K targets; those of a loss of class indices have shape
    (N, C), with the classes as labels, in an array of floats or integers. Results are float64
    arrays of that shape, evaluated in float64, which the library rounds to float32.

    Raises TypeError for a function that is not declared; ValueError for one that is no loss of rows
    with a score and a target each, an unknown ``hessian``, a ``hessian_scale`` that is not positive
    and finite, or a parameter that the loss does not have; and the objective what the loss does.
    Source: Chen and Guestrin (2016), equation 5; Friedman, Hastie and Tibshirani (2000).

    >>> from losses import pseudo_huber_loss
    >>> objective = sklearn_objective(pseudo_huber_loss, delta=2.0)
    >>> gradient, hessian = objective(np.array([1.0, 1.0]), np.array([1.0, 2.5]))
    >>> gradient.tolist(), hessian.tolist()
    ([0.0, 1.2], [1.0, 0.512])
    """
    _check(base(loss), parameters)
    if hessian not in get_args(Hessian):
        reject("hessian", describe(hessian), "'exact' or 'ones'")
    if not 0 < hessian_scale < math.inf:
        reject("hessian_scale", hessian_scale, "a finite number > 0")
    return functools.partial(_derivatives, loss, hessian, hessian_scale, parameters)


# --- what they return partials of: functions of a module, so that an estimator can be pickled -----


def _of_dataset(
    objective: Callable[..., tuple[Array, Array]], preds: Array, data: Dataset
) -> tuple[Array, Array]:
    weight = data.get_weight()
    given = weight is not None and len(weight) > 0
    return objective(data.get_label(), preds, weight if given else None)


def _derivatives(
    loss: Loss,
    hessian: Hessian,
    hessian_scale: float,
    parameters: dict[str, Any],
    y_true: Array,
    y_pred: Array,
    sample_weight: Array | None = None,
) -> tuple[Array, Array]:
    record = base(loss)
    scores = np.asarray(y_pred, np.float64)
    target = np.asarray(y_true)
    if record.coupled == "class":
        target = _classes(target, scores)
    known = {**parameters, "reduction": "none"}
    first = record.derivatives["gradient"](scores, target, **known)
    second = np.ones_like(scores)
    if hessian == "exact":
        second = record.derivatives["hessian_diagonal"](scores, target, **known)
        if first.any() and not second.any():
            wants = f"'ones': every second derivative of {record.name} is 0 here"
            reject("hessian", "'exact'", wants)
    weight = np.ones(len(scores)) if sample_weight is None else np.asarray(sample_weight)
    by_row = weight.astype(np.float64).reshape(-1, *(1,) * (scores.ndim - 1))
    return by_row * first, hessian_scale * by_row * second


# --- checks --------------------------------------------------------------------------------------


def _check(record: Operation, parameters: dict[str, Any]) -> None:
    """Reject a loss without a score and a target in every row, or a parameter that it has not."""
    is_of_rows = len(record.arguments) == 2 and record.coupled in (None, "class")
    if record.kind != "loss" or not is_of_rows:
        reject("loss", record.name, "a loss with a score, or one for each class, and a target")
    known = [name for name in record.parameters if name != "reduction"]
    for name, value in parameters.items():
        if name not in known:
            wants = f"a parameter of {record.name}: {', '.join(known) or 'it has none'}"
            reject(name, describe(value), wants)


def _classes(target: Array, scores: Array) -> Array:
    """Return the labels of rows as class indices; probabilities of classes as they are."""
    if scores.ndim != 2:
        reject("y_pred", describe(scores), "scores of shape (N, C): num_class is C")
    if target.ndim == 2:
        return target
    fractions = target[target != np.floor(target)]
    if len(fractions):
        reject("y_true", f"the label {fractions[0]}", "class indices")
    return target.astype(np.int64)
