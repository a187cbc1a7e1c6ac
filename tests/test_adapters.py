"""Losses as objectives of XGBoost and LightGBM, against the objectives that they bring."""

from __future__ import annotations

import doctest
import inspect
import json
import math
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost

import activations
import losses
from losses.adapters import sklearn_objective, train_objective

pytestmark = pytest.mark.xdist_group("adapters")

PAGE = Path(__file__).parents[1] / "docs" / "boosting.md"
ROUNDS, ROWS = 6, 400
ULPS = 8
"""By how many ulp of float32, of the largest leaf of a model, a leaf may differ: XGBoost evaluates
its own objectives in float32, and later trees are fitted to what earlier ones gave."""

rng = np.random.default_rng(0)
X = rng.normal(size=(ROWS, 5)).astype(np.float32)
Y = X[:, 0] + np.sin(2 * X[:, 1]) + 0.5 * rng.normal(size=ROWS)
WEIGHT = rng.uniform(0.5, 2, ROWS).astype(np.float32)
CLASSES = np.digitize(Y, [-0.7, 0.7])
LABELS = {
    "binary_cross_entropy_with_logits": Y > 0,
    "poisson_nll_loss": rng.poisson(np.exp(Y / 2)),
    "gamma_nll_loss": np.exp(Y / 2),
    "tweedie_nll_loss": rng.poisson(np.exp(Y)) * rng.gamma(2.0, size=ROWS),
    "cross_entropy": CLASSES,
}
"""What a loss wants, if not any real numbers."""

Trees = list[list[tuple[Any, Any, Any]]]
Objective = Callable[..., Any]


def nodes(node: dict[str, Any]) -> Iterator[tuple[Any, Any, Any]]:
    """Feature, threshold and leaf value of every node below one, of either library."""
    feature = node.get("split", node.get("split_feature"))
    threshold = node.get("split_condition", node.get("threshold"))
    yield feature, threshold, node.get("leaf", node.get("leaf_value"))
    sides = [node[side] for side in ("left_child", "right_child") if side in node]
    for child in node.get("children", sides):
        yield from nodes(child)


def xgboost_trees(
    parameters: dict[str, Any],
    label: Any,
    objective: Objective | None = None,
    weight: Any = WEIGHT,
) -> Trees:
    data = xgboost.DMatrix(X, label=label, weight=weight)
    fixed = {"nthread": 1, "max_depth": 3, "base_score": 0.5}
    booster = xgboost.train({**fixed, **parameters}, data, ROUNDS, obj=objective)
    return [list(nodes(json.loads(tree))) for tree in booster.get_dump(dump_format="json")]


def lightgbm_trees(
    parameters: dict[str, Any],
    label: Any,
    objective: Objective | None = None,
    weight: Any = WEIGHT,
) -> Trees:
    fixed = {"num_threads": 1, "max_depth": 3, "verbosity": -1, "boost_from_average": False}
    chosen = {} if objective is None else {"objective": objective}
    data = lightgbm.Dataset(X, label=label, weight=weight)
    booster = lightgbm.train({**fixed, **parameters, **chosen}, data, ROUNDS)
    return [list(nodes(tree["tree_structure"])) for tree in booster.dump_model()["tree_info"]]


def splits(trees: Trees) -> Any:
    return [[node[:2] for node in tree] for tree in trees]


def leaves(trees: Trees) -> Any:
    return np.array([node[2] for tree in trees for node in tree if node[0] is None])


def assert_same(ours: Trees, theirs: Trees) -> None:
    assert len(theirs) >= ROUNDS
    assert all(len(tree) > 3 for tree in theirs), "a tree without splits compares nothing"
    for number, (tree, other) in enumerate(zip(splits(ours), splits(theirs), strict=True)):
        assert tree == other, f"splits of tree {number}"
    got, wants = leaves(ours), leaves(theirs)
    off = abs(got - wants) / np.spacing(abs(wants).max().astype(np.float32))
    at = off.argmax()
    assert off[at] <= ULPS, f"leaf {at}: {got[at]}, wants {wants[at]}; {off[at]:.3g} ulp"


ROW = re.compile(r"^\| `(\{.*?\})` \| `(\w+)(.*?)` \|$", re.MULTILINE)
CASES = [
    pytest.param(trees, *row, id=f"{trees.__name__} {json.loads(row[0])['objective']} {row[1]}")
    for trees, table in zip(
        (xgboost_trees, lightgbm_trees), PAGE.read_text().split("| LightGBM |"), strict=True
    )
    for row in ROW.findall(table)
]


def test_the_page_has_tables() -> None:
    assert len(CASES) == PAGE.read_text().count('| `{"objective"')


@pytest.mark.parametrize(("trees", "parameters", "loss", "arguments"), CASES)
def test_grows_the_trees_of_the_librarys_own_objective(
    trees: Callable[..., Trees], parameters: str, loss: str, arguments: str
) -> None:
    known = {**vars(losses), "np": np, "math": math, "train_objective": train_objective}
    objective = eval(f"train_objective({loss}{arguments})", known)
    label = LABELS.get(loss, Y)
    ours = trees(json.loads(parameters), label, objective)
    assert_same(ours, trees(json.loads(parameters), label))


def test_the_page_runs() -> None:
    results = doctest.testfile(str(PAGE), module_relative=False)
    assert results.attempted > 5
    assert results.failed == 0


def test_rows_need_no_weights() -> None:
    for trees, name in ((xgboost_trees, "reg:squarederror"), (lightgbm_trees, "regression")):
        parameters = {"objective": name}
        ours = trees(parameters, Y, train_objective(losses.sum_of_squares), None)
        assert_same(ours, trees(parameters, Y, None, None))


def test_a_loss_that_is_twice_as_large_wants_twice_the_regularisation() -> None:
    once = {"reg_lambda": 1.5, "reg_alpha": 0.5, "gamma": 0.1, "min_child_weight": 3.0}
    twice = {name: 2 * value for name, value in once.items()}
    ours = xgboost_trees(twice, Y, train_objective(losses.mse_loss))
    assert_same(ours, xgboost_trees(once, Y))


def test_several_targets() -> None:
    label, parameters = np.stack([Y, -2 * Y], axis=1), {"objective": "reg:pseudohubererror"}
    ours = xgboost_trees(parameters, label, train_objective(losses.pseudo_huber_loss))
    assert_same(ours, xgboost_trees(parameters, label))


def test_probabilities_of_classes() -> None:
    """One-hot they are the classes."""
    probabilities = xgboost_trees({}, np.eye(3)[CLASSES], train_objective(losses.cross_entropy))
    named = {"objective": "multi:softprob", "num_class": 3}
    assert_same(probabilities, xgboost_trees(named, CLASSES, train_objective(losses.cross_entropy)))


@pytest.mark.parametrize(
    ("trees", "named", "objective"),
    [
        (lightgbm_trees, {"objective": "regression_l1"}, (losses.l1_loss, {})),
        (
            lightgbm_trees,
            {"objective": "quantile", "alpha": 0.3},
            (losses.quantile_loss, {"quantile": 0.3}),
        ),
        (xgboost_trees, {"objective": "reg:absoluteerror"}, (losses.l1_loss, {})),
    ],
)
def test_only_the_library_fits_leaves_anew(
    trees: Callable[..., Trees], named: dict[str, Any], objective: Any
) -> None:
    """To a quantile of the residuals: after the first splits the models are different ones."""
    loss, given = objective
    ours = trees({}, Y, train_objective(loss, hessian="ones", **given))[:1]
    theirs = trees(named, Y)[:1]
    assert splits(ours) == splits(theirs)
    assert abs(leaves(ours) - leaves(theirs)).max() > 0.01


def test_without_a_second_derivative_there_is_no_newton_step() -> None:
    for trees in (xgboost_trees, lightgbm_trees):
        with pytest.raises(ValueError, match="hessian: got 'exact', wants 'ones': every second"):
            trees({}, Y, train_objective(losses.l1_loss))
    gradient, hessian = sklearn_objective(losses.squared_hinge_loss)(np.ones(2), np.full(2, 3.0))
    assert not gradient.any(), "every margin is wide enough: there is nothing left to learn"
    assert not hessian.any()


# --- the form of estimators ----------------------------------------------------------------------


def test_the_signature_is_what_both_libraries_look_for() -> None:
    """XGBoost passes weights by name, LightGBM by place where there are three arguments."""
    parameters = inspect.signature(sklearn_objective(losses.mse_loss)).parameters
    assert list(parameters) == ["y_true", "y_pred", "sample_weight"]


def test_weights_and_the_scale_are_factors() -> None:
    y_true, y_pred, weight = np.array([0, 2]), np.array([1.0, 5.0], "f4"), np.array([1.0, 3.0])
    objective = sklearn_objective(losses.mse_loss, hessian_scale=0.5)
    gradient, hessian = objective(y_true, y_pred, sample_weight=weight)
    assert gradient.dtype == hessian.dtype == np.float64
    assert (gradient.tolist(), hessian.tolist()) == ([2.0, 18.0], [1.0, 3.0])
    _, ones = sklearn_objective(losses.mse_loss, hessian="ones")(y_true, y_pred, weight)
    assert ones.tolist() == weight.tolist()


def test_classes_are_integers_in_floats() -> None:
    objective = sklearn_objective(losses.cross_entropy, label_smoothing=0.1)
    logits, labels = rng.normal(size=(4, 3)), np.array([0.0, 1.0, 2.0, 1.0], np.float32)
    gradient, hessian = objective(labels, np.asfortranarray(logits))
    assert gradient.shape == hessian.shape == (4, 3)
    of_rows, _ = objective(np.eye(3)[labels.astype(int)], logits)
    np.testing.assert_allclose(gradient, of_rows, rtol=1e-14)
    for wrong in (1.5, np.nan):
        with pytest.raises(ValueError, match=f"y_true: got the label {wrong}, wants class indices"):
            objective(np.array([0, 1, 2, wrong]), logits)
    with pytest.raises(IndexError, match="target: got"):
        objective(np.array([0, 1, 2, 3]), logits)
    with pytest.raises(ValueError, match=r"y_pred: got .* of shape \(4,\), wants scores of shape"):
        objective(labels, logits[:, 0])


def test_can_be_pickled() -> None:
    objective = pickle.loads(pickle.dumps(sklearn_objective(losses.huber_loss, delta=2.0)))
    gradient, _ = objective(np.zeros(2), np.array([1.0, 3.0]))
    assert gradient.tolist() == [1.0, 2.0]
    assert callable(pickle.loads(pickle.dumps(train_objective(losses.huber_loss))))


# --- what is rejected ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "parameters", "error", "words"),
    [
        (np.abs, {}, TypeError, "function: got ufunc"),
        (activations.silu, {}, ValueError, "loss: got silu, wants a loss with a score"),
        (losses.gaussian_nll_loss, {}, ValueError, "loss: got gaussian_nll_loss, wants"),
        (losses.triplet_margin_loss, {}, ValueError, "loss: got triplet_margin_loss, wants"),
        (losses.kl_divergence, {}, ValueError, "loss: got kl_divergence, wants"),
        (
            losses.mse_loss_gradient,
            {},
            ValueError,
            "function: got mse_loss_gradient, wants mse_los",
        ),
        (losses.huber_loss, {"beta": 1.0}, ValueError, "beta: got float 1.0, wants a parameter of"),
        (losses.huber_loss, {"reduction": "mean"}, ValueError, "wants a parameter of huber_loss: "),
        (
            losses.mse_loss,
            {"wrt": "target"},
            ValueError,
            "wrt: got str 'target', wants a parameter",
        ),
        (losses.mse_loss, {"hessian": "one"}, ValueError, "hessian: got str 'one', wants 'exact' "),
        (losses.mse_loss, {"hessian_scale": 0}, ValueError, "hessian_scale: got 0, wants a finite"),
    ],
)
def test_says_what_does_not_fit(
    loss: Any, parameters: dict[str, Any], error: type[Exception], words: str
) -> None:
    for make in (sklearn_objective, train_objective):
        with pytest.raises(error, match=re.escape(words)):
            make(loss, **parameters)


def test_the_loss_checks_labels_and_values_of_parameters() -> None:
    with pytest.raises(ValueError, match="delta: got -1.0, wants a finite number > 0"):
        xgboost_trees({}, Y, train_objective(losses.huber_loss, delta=-1.0))
    with pytest.raises(ValueError, match="target: got .* wants labels, each -1 or 1"):
        lightgbm_trees({}, Y > 0, train_objective(losses.soft_margin_loss))
