"""A function and its derivative in one compiled pass, into buffers that are given.

The formulas are the declared ones; torch.compile turns them into one kernel that reads its
arguments once. They are evaluated in float32 (float64 stays what it is), as fast kernels do, which
costs a few ulp for usual parameters; ``precise=True``, and every second derivative, is evaluated in
float64 and rounded once.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from gradref import arrays
from gradref.arrays import describe, reject
from gradref.autodiff import lookup
from gradref.declare.calls import bind, layout_of
from gradref.declare.operation import Operation, operation
from gradref.environment import has_compiler
from gradref.fusion.replay import CallForm, Replay
from gradref.fusion.settings import SMALL, settings

if TYPE_CHECKING:
    from gradref.fusion.compiler import GraphCall

DEFAULT = {
    "elementwise": ("value", "derivative"),
    "rowwise": ("value", "vjp"),
    "loss": ("value", "gradient"),
}
"""The results where none are named, by the kind of the operation."""

BACKWARD = ("grad_output", "tangent", "wrt", "along")
"""What derivatives take beyond the arguments of the function, by keyword."""

CANCELLING = ("second_derivative",)
"""The results that are evaluated in float64 all the same: their terms cancel near their zeros."""

MOST_REPLAYS = 128
"""The size of the replay cache, in forms of calls."""

Shape = Sequence[int]
Buffers = Sequence[Tensor | None]
Found = tuple[list[Tensor | None], "GraphCall | None"]
"""The results, None for those that are in their buffers, and what can be replayed."""

Compute = Callable[[Mapping[str, Tensor], Buffers], Found]


def fuse(function: Callable[..., Any], *results: str, precise: bool = False) -> Fused:
    """Make one kernel for a declared function and its derivative, or for the ``results`` named.

    Results are ``"value"``, the declared derivatives, like ``"second_derivative"`` or
    ``"hessian_diagonal"``, and ``"vjp"`` and ``"jvp"``. Without any they are the value and the
    derivative, of a row-wise function the vector-Jacobian product, of a loss the gradient.

    The kernel takes the arguments of the function, and ``grad_output``, ``tangent``, ``wrt`` and
    ``along`` by keyword: tensors or NumPy arrays, on their own memory. It returns one result or a
    tuple. ``out`` is a buffer for every result that has a number for each one of the input, or for
    each output of a gated unit; a tuple of them for two. It may be an input, which is then
    overwritten. Values are not checked against their domain: a class that does not exist has no
    entry in a gradient.

    An elementwise result is within 4 ulp in float32 and 1 ulp in 16 bits for the parameters that
    docs/accuracy.md lists, at every input. Other parameters can cost any number of digits, as
    float32 may not hold what is computed on the way: ``precise=True`` is as accurate as the
    function itself, in all dtypes.

    Of ``linear_cross_entropy``, whose logits are products of matrices, nothing is compiled. Its
    kernel computes them once, those of a tenth of the rows at a time, and gives the loss and the
    gradient by each argument in ``wrt``, a name or a tuple.

    Raises ValueError for a result that is not declared, and what the function raises.

    >>> import torch, activations, losses
    >>> fuse(activations.sigmoid)(torch.tensor([0.0, 2.0]))
    (tensor([0.5000, 0.8808]), tensor([0.2500, 0.1050]))
    >>> logits = torch.tensor([[0.0, 0.0]])
    >>> loss, gradient = fuse(losses.cross_entropy)(logits, torch.tensor([0]), out=logits)
    >>> logits
    tensor([[-0.5000,  0.5000]])
    """
    batch = getattr(function, "operation", None)
    if isinstance(batch, Operation) and batch.value_and_gradients and function is batch.function:
        return FusedBatch(batch, results, precise)
    record = operation(function)
    if function is not record.function:
        reject("function", getattr(function, "__name__", function), f"{record.name} itself")
    return Fused(record, results or DEFAULT[record.kind], precise)


def _made(function: Callable[..., Any], results: Sequence[str], precise: bool) -> Fused:
    return fuse(function, *results, precise=precise)


class Fused:
    """A kernel that :func:`fuse` has made; ``compile_seconds`` is what compiling it has taken."""

    def __init__(self, record: Operation, results: Sequence[str], precise: bool) -> None:
        known = _functions(record)
        for name in results:
            if name not in known:
                reject("results", repr(name), f"of {', '.join(known)}")
        self.record, self.results, self.precise = record, tuple(results), precise
        self.compile_seconds = 0.0
        self._functions = [known[name] for name in results]
        self._signature = record.signature
        self.__signature__ = _with_keywords(self._signature, self._functions)
        self._accepted = [set(inspect.signature(f).parameters) for f in self._functions]
        self._compiled: dict[Any, Compute] = {}
        self._replays: dict[Any, Replay] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (self.record.function, self.results, self.precise)

    def as_autograd(self) -> Callable[..., Tensor]:
        """Return the function that torch differentiates once, in float32 arithmetic.

        Forward computes value and derivative in one pass and keeps the derivative, of a loss the
        gradient, in place of the arguments; backward multiplies it. A row-wise function keeps its
        arguments, and backward is one pass too. Where torch traces it is ``as_autograd`` of the
        declared function.
        """
        from gradref.fusion.training import differentiable

        make = functools.partial(fuse, self.record.function, precise=self.precise)
        return differentiable(self.record, make)

    def __repr__(self) -> str:
        what = f"{self.record.name}: {', '.join(self.results)}"
        return f"<fused {what}{', precise' if self.precise else ''}>"

    def __call__(self, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        """Return the results, in the order in which they were asked for."""
        form = CallForm.of(args, kwargs, out)
        if form is not None and form.key in self._replays:
            return _unpacked(self._replays[form.key](form.tensors))
        backward = {name: kwargs.pop(name) for name in BACKWARD if name in kwargs}
        given = {**bind(self._signature, args, kwargs), **backward}
        first = next(iter(given))
        if not hasattr(given[first], "shape"):
            reject(first, describe(given[first]), "a tensor or an array", TypeError)
        entered = {n: arrays.enter(n, v) for n, v in given.items() if hasattr(v, "shape")}
        tensors = {name: tensor for name, (tensor, _) in entered.items()}
        restore = entered[first][1]
        tensors[first] = arrays.to_float(tensors[first], like=given[first])
        x = tensors[first]
        shapes: list[Shape | None] = [None] * len(self.results)
        if out is not None:
            shapes = [self._shape_of_a_buffer(result, x, given) for result in self.results]
        shown = self._by_result(out, shapes)
        entered_buffers = [
            None if shape is None else arrays.enter_out(b, given[first], shape, x.dtype, tensors)
            for b, shape in zip(shown, shapes, strict=True)
        ]
        _check_apart(entered_buffers)
        buffers = [None if b is None else _same_as_input(b, tensors) for b in entered_buffers]
        constants = {name: value for name, value in given.items() if name not in tensors}
        found, graph_call = self._compute(tensors, constants, buffers)
        results = [
            buffer if result is None else restore(result)
            for result, buffer in zip(found, shown, strict=True)
        ]
        if form is not None and graph_call is not None:
            self._record(form, graph_call, results)
        return _unpacked(results)

    def _record(self, form: CallForm, graph_call: GraphCall, results: Sequence[Any]) -> None:
        """Keep the call of a graph for the next call of the same form."""
        replay = Replay.record(form.tensors, graph_call, results)
        if replay is not None:
            if len(self._replays) == MOST_REPLAYS:
                self._replays.clear()
            self._replays[form.key] = replay

    def _by_result(self, out: Any, shapes: Sequence[Shape | None]) -> list[Any]:
        """Return the buffer of every result, None where it has none."""
        if out is None:
            return [None] * len(self.results)
        buffers = list(out) if isinstance(out, tuple) else [out]
        wanted = [n for n, shape in zip(self.results, shapes, strict=True) if shape is not None]
        if len(buffers) != len(wanted):
            reject("out", f"{len(buffers)} buffers", f"one for each of {', '.join(wanted)}")
        return [None if shape is None else buffers.pop(0) for shape in shapes]

    def _shape_of_a_buffer(self, result: str, x: Tensor, given: Mapping[str, Any]) -> Shape | None:
        """Return the shape of the buffer for a result: of the input, or of one part of its rows."""
        record = self.record
        if record.kind == "loss" and result == "value":
            is_array = record.coupled is None and given.get("reduction", "none") == "none"
            return x.shape if is_array else None
        if result == "jacobian" or given.get("wrt") in record.shared:
            return None
        layout = layout_of(record, next(iter(given)), x, given)
        return layout.shape_of("output" if result in ("value", "jvp") else "element")

    def _compute(
        self, tensors: Mapping[str, Tensor], constants: Mapping[str, Any], buffers: Buffers
    ) -> Found:
        """Compute the results by the compiled kernel, which is compiled where there is none yet."""
        from gradref.fusion import compiler, private  # torch's compiler takes seconds to import

        evaluate = functools.partial(self._evaluate, constants)
        first = next(iter(tensors.values()))
        options = settings(first.numel(), not self.precise)
        in_parts = self._is_in_parts(tensors, constants, buffers)
        key, into = (*_key(tensors, constants), in_parts), _aliases(tensors, buffers)
        if (key, into) not in self._compiled:
            if not has_compiler(first.device.type):
                words = "no C++ compiler: fused kernels run uncompiled, and slowly"
                warnings.warn(words, stacklevel=3)
                return evaluate(tensors, buffers), None
            self._compiled[key, into] = self._compile(constants, options, in_parts)
        before, start = compiler.Compiled.compilations, time.perf_counter()
        with contextlib.nullcontext() if self.precise else arrays.native():
            try:
                found = self._compiled[key, into](tensors, buffers)
            except private.CompilingError:
                if not any(isinstance(place, int) for place in into):
                    raise
                # Inductor (2.13) does not generate every loop over rows in place.
                apart = key, (None,) * len(into)
                if apart not in self._compiled:
                    self._compiled[apart] = self._compile(constants, options, in_parts=False)
                self._compiled[key, into] = _through_fresh_memory(self._compiled[apart])
                found = self._compiled[key, into](tensors, buffers)
            except private.TracingError:
                # What a formula refuses comes wrapped in words about tracing: meta tensors raise it
                # as it is, without computing anything.
                evaluate({n: t.to("meta") for n, t in tensors.items()}, [None] * len(buffers))
                raise
        if compiler.Compiled.compilations > before:
            self.compile_seconds += time.perf_counter() - start
        return found

    def _compile(
        self, constants: Mapping[str, Any], options: Mapping[str, Any], in_parts: bool
    ) -> Compute:
        from gradref.fusion import compiler, parts

        if in_parts:
            of_rows = functools.partial(self._evaluate, {**constants, "dim": -1})
            return parts.InParts(of_rows, options, self.record.parts)
        return compiler.Compiled(functools.partial(self._evaluate, constants), options)

    def _is_in_parts(
        self, tensors: Mapping[str, Tensor], constants: Mapping[str, Any], buffers: Buffers
    ) -> bool:
        """Return whether to compile for the parts of rows: all are in memory, in one piece."""
        dims = -1, next(iter(tensors.values())).dim() - 1
        if self.record.parts == 1 or constants["dim"] not in dims:
            return False
        return all(a is not None and a.is_contiguous() for a in (*tensors.values(), *buffers))

    def _evaluate(
        self, constants: Mapping[str, Any], tensors: Mapping[str, Tensor], buffers: Buffers
    ) -> list[Tensor | None]:
        """Evaluate each result by its declared function, and copy it into its buffer."""
        found: list[Tensor | None] = []
        parts = zip(self.results, self._functions, self._accepted, strict=True)
        for name, function, accepted in parts:
            (_, first), *arguments = ((n, t) for n, t in tensors.items() if n in accepted)
            parameters = {n: v for n, v in constants.items() if n in accepted}
            if name in CANCELLING:
                wide = function(first.to(arrays.WIDE), **parameters)
                found.append(arrays.round_once(wide, first.dtype))
            else:
                found.append(function(first, **dict(arguments), **parameters))
        return _copied(found, buffers)


class FusedBatch(Fused):
    """The loss of a batch and its gradient by ``wrt``, or its gradients by each of a tuple.

    Nothing is compiled: what takes time are products of matrices, which torch has.
    """

    def __init__(self, record: Operation, results: Sequence[str], precise: bool) -> None:
        if tuple(results) not in ((), DEFAULT["loss"]):
            reject("results", ", ".join(map(repr, results)), "none named: a loss and its gradient")
        assert record.value_and_gradients is not None  # fuse has looked
        self._together = record.value_and_gradients
        self.record, self.results, self.precise = record, DEFAULT["loss"], precise
        self.compile_seconds = 0.0
        self.__signature__ = inspect.signature(self._together)

    def as_autograd(self) -> Callable[..., Tensor]:
        """Return the function that torch differentiates once.

        Forward keeps the gradients of a reduced loss in place of the arguments, and backward
        multiplies them; of unreduced losses backward is a pass of its own.
        """
        from gradref.fusion.training import differentiable_batch

        return differentiable_batch(self.record, self)

    def __call__(self, *args: Any, out: Any = None, **kwargs: Any) -> Any:
        """Return the loss, and its gradient by each argument that was asked for."""
        if out is not None:
            reject("out", describe(out), "None: a loss of a batch has no buffers", TypeError)
        wrt = kwargs.pop("wrt", self.record.arguments[0])
        names = (wrt,) if isinstance(wrt, str) else wrt
        dtypes = {str(getattr(value, "dtype", "")) for value in (*args, *kwargs.values())}
        is_wide = self.precise or bool(dtypes & {"torch.float64", "float64"})
        with contextlib.nullcontext() if is_wide else arrays.native():
            return self._together(*args, **kwargs, wrt=names)


def _copied(found: Sequence[Tensor | None], buffers: Buffers) -> list[Tensor | None]:
    """Copy each result into its buffer, and return those that have none."""
    for result, buffer in zip(found, buffers, strict=True):
        if buffer is not None and result is not None:
            buffer.copy_(result)
    return [r if b is None else None for r, b in zip(found, buffers, strict=True)]


def _key(tensors: Mapping[str, Tensor], constants: Mapping[str, Any]) -> Any:
    """Return what a kernel is compiled for, besides where its results go."""
    forms = tuple((name, t.dtype, t.dim(), t.device) for name, t in tensors.items())
    is_small = next(iter(tensors.values())).numel() <= SMALL
    return forms, tuple(constants.items()), is_small


def _aliases(tensors: Mapping[str, Tensor], buffers: Buffers) -> tuple[int | str | None, ...]:
    """Return for each result which input it overwrites, "other" for other memory, None for none."""
    places = [id(t) for t in tensors.values()]
    return tuple(
        None if b is None else places.index(id(b)) if id(b) in places else "other" for b in buffers
    )


def _through_fresh_memory(compute: Compute) -> Compute:
    """Overwrite an input after all results are computed elsewhere."""

    def through(tensors: Mapping[str, Tensor], buffers: Buffers) -> Found:
        found, _ = compute(tensors, [None] * len(buffers))
        return _copied(found, buffers), None

    return through


def _unpacked(results: Sequence[Any]) -> Any:
    return tuple(results) if len(results) > 1 else results[0]


def _functions(record: Operation) -> dict[str, Callable[..., Any]]:
    """Return the function of every result that can be asked for."""
    declared = {n: f for n, f in record.derivatives.items() if not n.endswith("_from_output")}
    if record.kind == "loss":
        return {"value": record.function, **declared}
    products = {"vjp": lookup.vjp(record.function), "jvp": lookup.jvp(record.function)}
    return {"value": record.function, **declared, **products}


def _with_keywords(
    signature: inspect.Signature, functions: Sequence[Callable[..., Any]]
) -> inspect.Signature:
    """Return a signature with ``out``, and by keyword what only the derivatives take."""
    parameters = dict(signature.parameters)
    for function in functions:
        for extra, parameter in inspect.signature(function).parameters.items():
            if extra in BACKWARD:
                parameters[extra] = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
    out = inspect.Parameter("out", inspect.Parameter.KEYWORD_ONLY, default=None)
    return inspect.Signature([*parameters.values(), out])


def _check_apart(buffers: Buffers) -> None:
    """Reject buffers that share memory: one result would overwrite the other."""
    places = [arrays.memory_range(buffer) for buffer in buffers if buffer is not None]
    if any(arrays.overlap(a, b) for a, b in itertools.combinations(places, 2)):
        reject("out", "buffers that share memory", "one of its own for each result")


def _same_as_input(buffer: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the input that a buffer is a view of, if any: the compiler has to see one tensor."""
    same = (t for t in inputs.values() if t.data_ptr() == buffer.data_ptr() and t.numel())
    return next(same, buffer)
