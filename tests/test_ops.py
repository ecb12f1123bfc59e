"""The op matrix: every row of the table on every engine, and its rules for bad input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import mpmath
import numpy as np
import op_convolution  # noqa: F401 (adds cases)
import op_structured  # noqa: F401 (adds cases)
import pytest
from op_cases import TESTED, Case, cases, covering
from op_samples import EXACT, EXACT_SIGNED, Array, mismatch
from scipy import special

from tracejit.errors import (
    AxisError,
    DTypeError,
    IndexOutOfRange,
    OutOfMemory,
    ShapeError,
    ValueArgumentError,
)
from tracejit.graph.graph import Graph
from tracejit.ops.table import OPS, Aval, Fact, Family
from tracejit.runtime.engine import compile_graph
from tracejit.runtime.interpreter import run_graph

Evaluate = Callable[[Graph, Sequence[Array]], list[Array]]


def _layout(x: Array) -> tuple[int, ...] | None:
    return None if x.flags.c_contiguous else tuple(s // x.itemsize for s in x.strides)


def compiled(graph: Graph, arrays: Sequence[Array]) -> list[Array]:
    """Return the outputs as the engine computes them, on the instruction set in force."""
    return compile_graph(graph, [_layout(a) for a in arrays]).run(arrays)


def check(case: Case, got: Array, want: Array) -> None:
    wrong = mismatch(got, want, case.tolerance)
    assert wrong is None, f"{case}: {wrong}"


@pytest.mark.parametrize("name", TESTED)
def test_every_row_has_cases(name: str) -> None:
    assert next(cases(name), None) is not None


def run_cases(evaluate: Evaluate, chosen: Iterable[Case]) -> None:
    """Check that an engine gives the reference's dtype, shape and values, inputs untouched."""
    for case in chosen:
        want = case.expected()
        before = [a.tobytes() for a in case.arrays]
        got = evaluate(case.graph(), list(case.arrays))[0]
        check(case, got, want)
        assert [a.tobytes() for a in case.arrays] == before, f"{case}: operands changed"


@pytest.mark.parametrize("name", TESTED)
def test_interpreted(name: str) -> None:
    run_cases(run_graph, cases(name))


@pytest.mark.parametrize("name", TESTED)
def test_compiled(name: str, level: str) -> None:
    """``level`` runs this on each instruction set of the machine."""
    run_cases(compiled, covering(name))


@pytest.mark.parametrize("name", [n for n in TESTED if OPS[n].decompose is not None])
def test_decomposition(name: str) -> None:
    """A composite's decomposition means what its reference means, in the same dtype and shape."""
    decomposed = 0
    for case in cases(name):
        graph = case.decomposed()
        if graph is None:
            continue
        decomposed += 1
        want = case.expected()
        check(case, run_graph(graph, list(case.arrays))[0], want)
        assert all(n.op.decompose is None or n.op.name != name for n in graph.nodes)
    assert decomposed, f"{name} was never decomposed"


# -- facts -----------------------------------------------------------------------------------------


def _rows(fact: Fact) -> list[str]:
    return [n for n in TESTED if OPS[n].has(fact) and OPS[n].family is Family.ELEMENTWISE]


def _closed_cases(name: str) -> list[tuple[Case, list[Array]]]:
    """Return the cases whose operands are of equal shape and dtype, which is the result's too."""
    found: list[tuple[Case, list[Array]]] = []
    for case in cases(name):
        operands = [n.aval for n in case.operands()[1]]
        result = case.graph().outputs[0].aval
        if not case.note and all(o == result for o in operands):
            found.append((case, [a.astype(result.dtype) for a in case.arrays]))
    return found


def _apply(name: str, *arrays: Array, **attrs: Any) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(OPS[name].reference(*arrays, **attrs))


@pytest.mark.parametrize("name", _rows(Fact.COMMUTATIVE))
def test_commutative(name: str) -> None:
    for case in cases(name):
        dtypes = {a.dtype for a in case.arrays}
        if len(dtypes) == 1 and OPS[name].obeys(Fact.COMMUTATIVE, *dtypes):
            x, y = case.arrays
            assert mismatch(_apply(name, y, x), _apply(name, x, y)) is None, case


@pytest.mark.parametrize("name", _rows(Fact.ASSOCIATIVE))
def test_associative(name: str) -> None:
    for case, (x, y) in _closed_cases(name):
        if not OPS[name].obeys(Fact.ASSOCIATIVE, x.dtype):
            continue
        z = np.roll(y, 1)
        left = _apply(name, _apply(name, x, y), z)
        assert mismatch(_apply(name, x, _apply(name, y, z)), left) is None, case


@pytest.mark.parametrize("name", _rows(Fact.IDEMPOTENT))
def test_idempotent(name: str) -> None:
    for case, arrays in _closed_cases(name):
        x = arrays[0]
        if len(arrays) == 2:
            assert mismatch(_apply(name, x, x), x) is None, case
        else:
            once = _apply(name, x)
            assert mismatch(_apply(name, once), once, EXACT_SIGNED) is None, case


@pytest.mark.parametrize("name", _rows(Fact.INVOLUTION))
def test_involution(name: str) -> None:
    for case, (x,) in _closed_cases(name):
        assert mismatch(_apply(name, _apply(name, x)), x, EXACT_SIGNED) is None, case


# -- accuracy of the references that are not NumPy's -----------------------------------------------


def _spread(low: float, high: float, count: int = 300) -> Array:
    return np.random.default_rng(1).uniform(low, high, count)


def _logarithmic(low: float, high: float, count: int = 200) -> Array:
    return 10 ** np.random.default_rng(2).uniform(low, high, count)


ACCURACY: dict[str, tuple[Callable[[Any], Any], list[Array], float, float]] = {
    # name: truth, arguments, ULP bound, smallest magnitude to which the bound is relative
    "erf": (mpmath.erf, [_spread(-6, 6), _spread(-1.3, 1.3), _logarithmic(-300, 0)], 1.5, 0),
    "erfc": (mpmath.erfc, [_spread(-6, 26.5), _spread(-1.3, 1.3)], 2.5, 0),
    "gamma": (mpmath.gamma, [_spread(0, 171.6), _spread(0, 5), _spread(-50, 0)], 10, 0),
    "lgamma": (
        lambda v: mpmath.re(mpmath.loggamma(v)),
        [_spread(0, 30), _spread(-30, 0), _logarithmic(-300, 300)],
        4,
        1,
    ),
    "digamma": (mpmath.digamma, [_spread(0, 100), _spread(-30, 0), _logarithmic(-9, 9)], 12, 1),
    "sigmoid": (lambda v: 1 / (1 + mpmath.exp(-v)), [_spread(-700, 50), _spread(-2, 2)], 2, 0),
    "ndtr": (mpmath.ncdf, [_spread(-5, 5)], 40, 0),
    "softplus": (lambda v: mpmath.log1p(mpmath.exp(v)), [_spread(-700, 50)], 3, 0),
    "log_sigmoid": (lambda v: -mpmath.log1p(mpmath.exp(-v)), [_spread(-50, 700)], 3, 0),
}


@pytest.mark.parametrize("name", ACCURACY)
def test_reference_accuracy(name: str) -> None:
    """The reference is within its bound of mpmath in double, and rounds to single once."""
    truth, arguments, bound, floor = ACCURACY[name]
    x = np.concatenate(arguments)
    with mpmath.workprec(160):
        exact = [truth(mpmath.mpf(float(v))) for v in x]
        got = _apply(name, x)
        unit = np.spacing(np.maximum(np.abs(np.array([float(e) for e in exact])), floor))
        error = [
            abs(mpmath.mpf(float(g)) - e) / u for g, e, u in zip(got, exact, unit, strict=True)
        ]
    worst = int(np.argmax([float(e) for e in error]))
    assert error[worst] <= bound, f"{float(error[worst]):.2f} ULP at {x[worst]!r}"
    if name in ("erf", "erfc", "gamma", "lgamma", "digamma", "sigmoid"):
        with np.errstate(over="ignore"):
            single = x.astype(np.float32)
            want = _apply(name, single.astype(np.float64)).astype(np.float32)
        assert mismatch(_apply(name, single), want) is None


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "erf": {np.inf: 1.0, -np.inf: -1.0, 0.0: 0.0, 5e-324: 5e-324},
        "erfc": {np.inf: 0.0, -np.inf: 2.0, 0.0: 1.0, 30.0: 0.0},
        "gamma": {
            0.0: np.inf, -1.0: np.nan, -np.inf: np.nan, np.inf: np.inf, 5.0: 24.0,
            171.0: 7.257415615307999e306, 172.0: np.inf, -200.5: -0.0, 5e-324: np.inf,
        },
        "lgamma": {0.0: np.inf, -3.0: np.inf, -np.inf: np.inf, np.inf: np.inf, 1.0: 0.0, 2.0: 0.0},
        "digamma": {0.0: -np.inf, -2.0: np.nan, np.inf: np.inf},
        "sigmoid": {np.inf: 1.0, -np.inf: 0.0, 0.0: 0.5, 800.0: 1.0, -800.0: 0.0},
    }.items(),
)  # fmt: skip
def test_special_values(name: str, values: dict[float, float]) -> None:
    x = np.array([*values, np.nan])
    want = np.array([*values.values(), np.nan])
    assert mismatch(_apply(name, x), want, EXACT) is None


def test_references_agree_with_scipy() -> None:
    x = np.random.default_rng(3).standard_normal((4, 9))
    one_axis = {"axis": (1,), "keepdims": False}
    np.testing.assert_allclose(_apply("softmax", x, axis=1), special.softmax(x, 1), rtol=1e-14)
    np.testing.assert_allclose(
        _apply("log_softmax", x, axis=1), special.log_softmax(x, 1), rtol=1e-13
    )
    np.testing.assert_allclose(
        _apply("logsumexp", x, **one_axis), np.asarray(special.logsumexp(x, 1)), rtol=1e-14
    )
    np.testing.assert_allclose(_apply("gelu", x), x * special.ndtr(x), rtol=1e-14)
    np.testing.assert_allclose(_apply("xlogy", x, x * x), special.xlogy(x, x * x), rtol=1e-14)
    np.testing.assert_allclose(_apply("i0", x), special.i0(x), rtol=1e-14)
    for row in (np.full((1, 3), -np.inf), np.array([[np.inf, 0, 1]]), np.array([[np.nan, 0, 1]])):
        got, want = _apply("logsumexp", row, **one_axis), special.logsumexp(row, 1)
        np.testing.assert_array_equal(got, want)


# -- bad input -------------------------------------------------------------------------------------

Bad = tuple[str, list[tuple[Any, tuple[int, ...]]], dict[str, Any], type[Exception], type, str]
BAD: list[Bad] = [
    ("add", [("f8", (3,)), ("f8", (4,))], {}, ShapeError, ValueError, "(3,) and (4,)"),
    ("invert", [("f8", (3,))], {}, DTypeError, TypeError, "invert does not take float64"),
    ("negative", [("?", (3,))], {}, DTypeError, TypeError, "bool"),
    ("add", [("O", (3,)), ("f8", (3,))], {}, DTypeError, TypeError, "object"),
    ("exp", [("U3", (3,))], {}, DTypeError, TypeError, "<U3"),
    ("exp", [("M8[s]", (3,))], {}, DTypeError, TypeError, "datetime64"),
    ("logsumexp", [("c16", (3,))], {"axis": (0,), "keepdims": False}, DTypeError, TypeError,
     "complex128"),
    ("cast", [("f8", (3,))], {"dtype": "O"}, DTypeError, TypeError, "object"),
    ("max", [("f8", (0,))], {"axis": (0,), "keepdims": False}, ShapeError, ValueError,
     "zero-size axis 0 of shape (0,)"),
    ("argmin", [("f8", (3, 0))], {"axis": (1,), "keepdims": False}, ShapeError, ValueError,
     "zero-size"),
    ("sum", [("f8", (3,))], {"axis": (1,), "keepdims": False}, AxisError, ValueError, "axis 1"),
    ("sum", [("f8", (3,))], {"axis": (1,), "keepdims": False}, AxisError, IndexError, "axis 1"),
    ("reshape", [("f8", (6,))], {"shape": (4, 2)}, ShapeError, ValueError, "6 elements"),
    ("broadcast_to", [("f8", (3,))], {"shape": (2,)}, ShapeError, ValueError, "(3,)"),
    ("broadcast_to", [("f8", (1,))], {"shape": (1 << 40, 1 << 10)}, OutOfMemory, MemoryError,
     "bytes"),
    ("broadcast_to", [("f8", ())], {"shape": (1,) * 65}, ShapeError, ValueError, "rank 65"),
    ("outer", [("f8", (1 << 30,)), ("f8", (1 << 30,))], {}, OutOfMemory, MemoryError, "bytes"),
    ("slice", [("f8", (3,))], {"start": (1,), "size": (3,), "step": (1,)}, IndexOutOfRange,
     IndexError, "3 elements from 1"),
    ("slice", [("f8", (3,))], {"start": (1,), "size": (1,), "step": (0,)}, ValueArgumentError,
     ValueError, "step"),
    ("concat", [("f8", (2, 3)), ("f8", (3, 2))], {"axis": 0}, ShapeError, ValueError, "(3, 2)"),
    ("concat", [], {"axis": 0}, ShapeError, ValueError, "nothing"),
    ("stack", [("f8", (2,)), ("f8", (3,))], {"axis": 0}, ShapeError, ValueError, "(3,)"),
    ("permute", [("f8", (2, 3))], {"axes": (0,)}, ShapeError, ValueError, "(2, 3)"),
    ("pad", [("f8", (2,)), ("f8", ())], {"low": (-1,), "high": (0,)}, ValueArgumentError,
     ValueError, "negative"),
    ("matmul", [("f8", (2, 3)), ("f8", (4, 5))], {}, ShapeError, ValueError, "3 columns, 4 rows"),
    ("einsum", [("f8", (2, 3))], {"subscripts": "ijk"}, ValueArgumentError, ValueError, "(2, 3)"),
    ("einsum", [("f8", (2,))], {"subscripts": "i->j"}, ValueArgumentError, ValueError, "output"),
    ("einsum", [("f8", (2,)), ("f8", (3,))], {"subscripts": "i,i"}, ValueArgumentError, ValueError,
     "sizes 2 and 3"),
    ("take", [("f8", (3,)), ("f8", (2,))], {"axis": 0}, DTypeError, TypeError, "integers"),
    ("take", [("f8", (0,)), ("i8", (2,))], {"axis": 0}, IndexOutOfRange, IndexError, "empty"),
    ("advanced_index", [("f8", (3, 4)), ("i8", (2,)), ("i8", (3,))], {"axes": (0, 1)}, ShapeError,
     ValueError, "(2,) and (3,)"),
    ("topk_indices", [("f8", (3,))], {"axis": 0, "k": 4}, ValueArgumentError, ValueError, "k = 4"),
    ("inv", [("f8", (2, 3))], {}, ShapeError, ValueError, "square"),
    ("solve", [("f8", (2, 2)), ("f8", (3, 1))], {}, ShapeError, ValueError, "(3, 1)"),
    ("fft", [("f8", (4,))], {"axis": 0, "n": 0}, ValueArgumentError, ValueError, "0 points"),
    ("attention", [("f8", (4, 8)), ("f8", (5, 7)), ("f8", (5, 8))], {"scale": 1.0}, ShapeError,
     ValueError, "queries"),
    ("layer_norm", [("f8", (4,)), ("f8", (5,)), ("f8", (4,))], {"axis": (0,), "eps": 0.0},
     ShapeError, ValueError, "(5,)"),
    ("cross_entropy", [("f8", (4, 3)), ("i8", (3,))], {"axis": 1}, ShapeError, ValueError, "(3,)"),
    ("random_integers", [], {"seed": 0, "shape": (3,), "dtype": "f8", "low": 0, "high": 2},
     DTypeError, TypeError, "float64"),
]  # fmt: skip


def _infer(name: str, avals: list[Aval], attrs: dict[str, Any]) -> Aval:
    rule = OPS[name].types
    if rule is not None:
        wanted, _ = rule(tuple(a.dtype for a in avals))
        avals = [Aval(d, a.shape) for d, a in zip(wanted, avals, strict=True)]
    return OPS[name].infer(avals, attrs)


@pytest.mark.parametrize("bad", BAD, ids=lambda b: f"{b[0]}-{b[3].__name__}")
def test_bad_input(bad: Bad) -> None:
    """The typed error is NumPy's exception class too, and names the op, shapes and dtypes."""
    name, operands, attrs, error, builtin, text = bad
    with pytest.raises(error) as raised:
        _infer(name, [Aval(np.dtype(d), s) for d, s in operands], attrs)
    assert isinstance(raised.value, builtin)
    assert text in str(raised.value)


@pytest.mark.parametrize("name", ["take", "advanced_index"])
def test_index_out_of_range_when_run(name: str) -> None:
    attrs: dict[str, Any] = {"axis": 0} if name == "take" else {"axes": (0,)}
    case = Case(name, (np.arange(3.0), np.array([0, 3])), attrs)
    with pytest.raises(IndexOutOfRange, match="out of bounds"):
        case.expected()


# -- promotion -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["add", "divide", "power", "arctan2", "maximum", "where"])
def test_weak_scalars_promote_as_in_numpy(name: str) -> None:
    """Python numbers take the array's dtype where NEP 50 says so."""
    rule = OPS[name].types
    assert rule is not None
    for dtype in ("bool", "int8", "uint16", "float32", "complex64"):
        for scalar in (2, 2.5, 1j):
            x = np.ones(3, dtype)
            lead = (np.dtype(bool),) if name == "where" else ()
            try:
                if name == "where":
                    want = np.where(x != 0, x, scalar).dtype
                else:
                    want = getattr(np, name)(x, scalar).dtype
            except TypeError:
                with pytest.raises(DTypeError):
                    rule((*lead, x.dtype, type(scalar)))
                continue
            assert rule((*lead, x.dtype, type(scalar)))[1] == want


def test_random_is_a_function_of_its_attributes() -> None:
    attrs: dict[str, Any] = {"seed": 1, "shape": (100,), "dtype": "<f4"}
    first, again = (_apply("random_normal", **attrs) for _ in range(2))
    assert mismatch(first, again) is None
    assert not np.array_equal(first, _apply("random_normal", stream=1, **attrs))
    assert not np.array_equal(first, _apply("random_normal", **{**attrs, "seed": 2}))
    uniform = _apply("random_uniform", low=-1.0, high=2.0, **{**attrs, "shape": (10000,)})
    assert -1 <= uniform.min() < -0.99
    assert 1.99 < uniform.max() <= 2
    assert np.sort(_apply("random_permutation", seed=0, shape=(9,), dtype="<i8")).tolist() == list(
        range(9)
    )
