"""The vector math: error bounds, special values, NumPy's validation sets, lanes and tails."""

from __future__ import annotations

import ctypes
import math
import time
from pathlib import Path

import numpy as np
import pytest

import tracejit as tj
from benchmarks.math_speed import loop_text
from benchmarks.ulp import (
    REFERENCES,
    Kernel,
    Reference,
    exact,
    kernel,
    kernel_text,
    reference,
    samples,
    ulp_errors,
    unit_scale,
)
from tracejit.codegen.builder import F32, F64, I64, PTR, VOID, Module, Value, const
from tracejit.codegen.llvm import assembly, compile_object
from tracejit.codegen.math import FUNCTIONS
from tracejit.codegen.math.common import integer_type, ldexp
from tracejit.codegen.math.piece_tables import ERF, ERFCX, TANH, Pieces
from tracejit.codegen.target import LEVELS
from tracejit.runtime import cpu
from tracejit.runtime.loader import LoadedObject

INF, NAN = math.inf, math.nan
DTYPES = ("f4", "f8")

# The strictest functions: largest error in ULP for (float32, float64). The rest: 2.
BOUNDS = {
    **dict.fromkeys(
        (
            "exp",
            "exp2",
            "expm1",
            "log",
            "log2",
            "log10",
            "log1p",
            "tanh",
            "sigmoid",
            "sin",
            "cos",
            "erf",
            "cbrt",
        ),
        (1.5, 1.0),
    ),
    **dict.fromkeys(("gamma", "lgamma"), (4.0, 4.0)),
}

# C99 Annex F.9 and, beyond C, the same spirit. Rows: arguments → result; signs of zeros count.
ODD_ZERO = [(0.0, 0.0), (-0.0, -0.0), (NAN, NAN)]
LOG_POLES = [
    (0.0, -INF),
    (-0.0, -INF),
    (1.0, 0.0),
    (-1.0, NAN),
    (-INF, NAN),
    (INF, INF),
    (NAN, NAN),
]
SPECIAL: dict[str, list[tuple[float, ...]]] = {
    "exp": [(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0), (NAN, NAN), (1e4, INF), (-1e4, 0.0)],
    "exp2": [(0.0, 1.0), (INF, INF), (-INF, 0.0), (NAN, NAN), (9.0, 512.0), (-149.0, 2.0**-149)],
    "expm1": [*ODD_ZERO, (INF, INF), (-INF, -1.0), (-1e4, -1.0), (1e4, INF)],
    "log": LOG_POLES,
    "log2": [*LOG_POLES, (8.0, 3.0)],
    "log10": [*LOG_POLES, (1e3, 3.0)],
    "log1p": [*ODD_ZERO, (-1.0, -INF), (-1.5, NAN), (-INF, NAN), (INF, INF)],
    "sigmoid": [(0.0, 0.5), (-0.0, 0.5), (INF, 1.0), (-INF, 0.0), (NAN, NAN), (1e4, 1.0)],
    "softplus": [(INF, INF), (-INF, 0.0), (NAN, NAN), (1e4, 1e4), (-1e4, 0.0)],
    "logaddexp": [
        (INF, INF, INF), (-INF, -INF, -INF), (-INF, 2.0, 2.0), (2.0, -INF, 2.0), (INF, -INF, INF),
        (NAN, 1.0, NAN), (1.0, NAN, NAN), (1e4, -1e4, 1e4),
    ],
    "logaddexp2": [
        (INF, INF, INF), (-INF, -INF, -INF), (-INF, 2.0, 2.0), (2.0, 2.0, 3.0), (NAN, 1.0, NAN),
    ],
    "sinh": [*ODD_ZERO, (INF, INF), (-INF, -INF), (1e4, INF), (-1e4, -INF)],
    "cosh": [(0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, INF), (NAN, NAN), (-1e4, INF)],
    "tanh": [*ODD_ZERO, (INF, 1.0), (-INF, -1.0), (1e4, 1.0), (-1e4, -1.0)],
    "arcsinh": [*ODD_ZERO, (INF, INF), (-INF, -INF)],
    "arccosh": [(1.0, 0.0), (0.5, NAN), (-1.0, NAN), (-2.0, NAN), (INF, INF), (-INF, NAN)],
    "arctanh": [*ODD_ZERO, (1.0, INF), (-1.0, -INF), (1.5, NAN), (-1.5, NAN), (INF, NAN)],
    "power": [
        (0.0, -3.0, INF), (-0.0, -3.0, -INF), (0.0, -2.0, INF), (-0.0, -2.0, INF),
        (-0.0, -2.5, INF), (0.0, -INF, INF), (-0.0, -INF, INF), (0.0, 3.0, 0.0), (-0.0, 3.0, -0.0),
        (0.0, 2.5, 0.0), (-0.0, 2.0, 0.0), (-1.0, INF, 1.0), (-1.0, -INF, 1.0), (1.0, NAN, 1.0),
        (1.0, INF, 1.0), (NAN, 0.0, 1.0), (INF, 0.0, 1.0), (NAN, -0.0, 1.0), (NAN, 1.0, NAN),
        (2.0, NAN, NAN), (-2.0, 0.5, NAN), (-8.0, 1.0 / 3.0, NAN), (0.5, -INF, INF),
        (2.0, -INF, 0.0), (0.5, INF, 0.0), (2.0, INF, INF), (-0.5, INF, 0.0), (-2.0, INF, INF),
        (-INF, -3.0, -0.0), (-INF, -2.0, 0.0), (-INF, -2.5, 0.0), (-INF, 3.0, -INF),
        (-INF, 2.0, INF), (-INF, 2.5, INF), (INF, -1.0, 0.0), (INF, 1.0, INF), (-2.0, 3.0, -8.0),
        (-2.0, 2.0, 4.0), (3.0, 2.0, 9.0), (2.0, -149.0, 2.0**-149), (10.0, 1e6, INF),
        (-10.0, 1e6 + 1, -INF), (10.0, -1e6, 0.0), (-10.0, -1e6 - 1, -0.0),
    ],
    "sin": [*ODD_ZERO, (INF, NAN), (-INF, NAN)],
    "cos": [(0.0, 1.0), (-0.0, 1.0), (INF, NAN), (-INF, NAN), (NAN, NAN)],
    "tan": [*ODD_ZERO, (INF, NAN), (-INF, NAN)],
    "arcsin": [*ODD_ZERO, (1.5, NAN), (-1.5, NAN), (INF, NAN)],
    "arccos": [(1.0, 0.0), (1.5, NAN), (-1.5, NAN), (INF, NAN), (NAN, NAN)],
    "arctan": [*ODD_ZERO, (INF, math.pi / 2), (-INF, -math.pi / 2)],
    "arctan2": [
        (0.0, -0.0, math.pi), (-0.0, -0.0, -math.pi), (0.0, 0.0, 0.0), (-0.0, 0.0, -0.0),
        (0.0, -1.0, math.pi), (-0.0, -1.0, -math.pi), (0.0, 1.0, 0.0), (-0.0, 1.0, -0.0),
        (-1.0, 0.0, -math.pi / 2), (1.0, -0.0, math.pi / 2), (1.0, -INF, math.pi),
        (-1.0, -INF, -math.pi), (1.0, INF, 0.0), (-1.0, INF, -0.0), (INF, 1.0, math.pi / 2),
        (-INF, 1.0, -math.pi / 2), (INF, -INF, 3 * math.pi / 4), (-INF, INF, -math.pi / 4),
        (NAN, 1.0, NAN), (1.0, NAN, NAN),
    ],
    "erf": [*ODD_ZERO, (INF, 1.0), (-INF, -1.0), (40.0, 1.0)],
    "erfc": [(0.0, 1.0), (INF, 0.0), (-INF, 2.0), (NAN, NAN)],
    "gamma": [
        (0.0, INF), (-0.0, -INF), (-1.0, NAN), (-INF, NAN), (INF, INF), (NAN, NAN), (5.0, 24.0),
        (1e4, INF),
    ],
    "lgamma": [(1.0, 0.0), (2.0, 0.0), (0.0, INF), (-3.0, INF), (INF, INF), (-INF, INF)],
    "cbrt": [*ODD_ZERO, (INF, INF), (-INF, -INF), (27.0, 3.0), (-8.0, -2.0)],
    "hypot": [
        (INF, NAN, INF), (NAN, -INF, INF), (-INF, 1.0, INF), (NAN, 1.0, NAN), (0.0, -0.0, 0.0),
        (3.0, -4.0, 5.0),
    ],
}  # fmt: skip

# Arguments that no rounding of the reference may touch.
_EDGES = (0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, INF, -INF, NAN, 1e-40, -1e-40, 1e-310, 3.4e38)


def run(name: str, dtype: str, *columns: object) -> np.ndarray:
    arguments = [np.ascontiguousarray(c, dtype) for c in columns]
    return kernel(name, dtype, cpu.target().name)(*arguments)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    words = f"u{a.dtype.itemsize}"
    return bool(np.all((a.view(words) == b.view(words)) | (np.isnan(a) & np.isnan(b))))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_error_stays_within_the_bound(name: str, dtype: str, any_level: str) -> None:
    arguments, truth, scale = _sampled(name, dtype)
    errors = ulp_errors(run(name, dtype, *arguments), truth, scale)
    worst = int(np.argmax(errors))
    bound = BOUNDS.get(name, (2.0, 2.0))[DTYPES.index(dtype)]
    assert errors[worst] <= bound, [float(a[worst]) for a in arguments]


_references: dict[tuple[str, str], tuple[list[np.ndarray], Reference, np.ndarray | None]] = {}


def _sampled(name: str, dtype: str) -> tuple[list[np.ndarray], Reference, np.ndarray | None]:
    """Arguments and reference values, found once for all levels."""
    if (name, dtype) not in _references:
        arguments = samples(name, dtype, 2000, seed=1)
        truth = reference(name, arguments)
        scale = unit_scale(name, arguments, truth)
        _references[name, dtype] = arguments, truth, scale
    return _references[name, dtype]


def test_every_function_has_a_reference_and_special_values() -> None:
    assert set(FUNCTIONS) <= set(REFERENCES)
    assert set(FUNCTIONS) <= set(SPECIAL)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_special_values(name: str, dtype: str, any_level: str) -> None:
    rows = np.array(SPECIAL[name])
    got = run(name, dtype, *rows[:, :-1].T)
    with np.errstate(all="ignore"):
        expected = rows[:, -1].astype(dtype)
        close = np.abs(got - expected) <= np.spacing(np.abs(expected))
    exact_value = (expected == 0) | ~np.isfinite(expected) | (expected == np.rint(expected))
    same = (got == expected) & (np.signbit(got) == np.signbit(expected))
    right = np.where(exact_value, same, close) | (np.isnan(got) & np.isnan(expected))
    wrong = [
        (*map(float, row), float(y)) for row, y, ok in zip(rows, got, right, strict=True) if not ok
    ]
    assert not wrong, "arguments, expected, got"


@pytest.mark.parametrize(
    "name", sorted({"exp", "exp2", "sigmoid", "power", "erfc"} & set(FUNCTIONS))
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_results_become_subnormal_gradually(name: str, dtype: str, any_level: str) -> None:
    info = np.finfo(dtype)
    logs = np.linspace(info.minexp - info.nmant - 2, info.minexp + 2, 300)
    columns = {
        "exp2": [logs],
        "power": [np.full_like(logs, 2.0), logs],
        "erfc": [np.sqrt(-logs * math.log(2)) * (1 - 1e-3)],
    }.get(name, [logs * math.log(2)])
    columns = [c.astype(dtype) for c in columns]
    errors = ulp_errors(run(name, dtype, *columns), exact(name, columns))
    assert errors.max() <= 1.5


@pytest.mark.parametrize("name", ["expm1", "log1p", "sinh", "tanh", "arcsinh", "arctanh"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tiny_arguments_are_their_own_result(name: str, dtype: str, any_level: str) -> None:
    info = np.finfo(dtype)
    tiny = float(info.smallest_subnormal) * np.array([1.0, 2.0, 3.0, 5.0, 1001.0, 2.0**20 + 1])
    x = np.concatenate([tiny, -tiny, [float(info.tiny), -float(info.tiny)]]).astype(dtype)
    assert same_bits(run(name, dtype, x), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_logarithms_of_subnormals(dtype: str, any_level: str) -> None:
    info = np.finfo(dtype)
    x = float(info.smallest_subnormal) * np.array([1.0, 2.0, 3.0, 5.0, 1001.0, 2.0**20 + 1])
    x = x.astype(dtype)
    for name in ("log", "log2", "log10"):
        assert ulp_errors(run(name, dtype, x), exact(name, [x])).max() <= 1.0


def test_exp2_and_log2_are_exact_on_powers_of_two(any_level: str) -> None:
    for dtype in DTYPES:
        info = np.finfo(dtype)
        n = np.arange(info.minexp - info.nmant, info.maxexp).astype(dtype)
        powers = np.ldexp(np.ones_like(n), n.astype(int))
        assert same_bits(run("exp2", dtype, n), powers)
        assert same_bits(run("log2", dtype, powers), n)


def test_log10_is_exact_on_powers_of_ten(any_level: str) -> None:
    n = np.arange(0, 23).astype("f8")
    assert same_bits(run("log10", "f8", 10.0**n), n)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_tail_equals_body_at_every_lane(name: str, dtype: str, any_level: str) -> None:
    lanes = cpu.target().lanes(8 * np.dtype(dtype).itemsize)
    rng = np.random.default_rng(3)
    with np.errstate(over="ignore", under="ignore"):
        edges = np.array(_EDGES).astype(dtype)
    columns = [
        rng.permutation(np.concatenate([edges, rng.normal(0, 3, 3 * lanes).astype(dtype)]))
        for _ in range(FUNCTIONS[name].arity)
    ]
    whole = run(name, dtype, *columns)
    for start in range(lanes):
        for size in (1, lanes - 1, lanes + 1):
            part = run(name, dtype, *(c[start : start + size] for c in columns))
            assert same_bits(part, whole[start : start + size]), (start, size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_scalars_and_narrow_vectors_have_the_same_bits(
    name: str, dtype: str, any_level: str
) -> None:
    """Kernels compute what does not vary along a row as scalars, and floats beside doubles."""
    target = cpu.target()
    native = target.lanes(8 * np.dtype(dtype).itemsize)
    rng = np.random.default_rng(4)
    with np.errstate(over="ignore", under="ignore"):
        edges = np.array(_EDGES).astype(dtype)
    numbers = np.concatenate([rng.normal(0, s, 58) for s in (1e-3, 1.0, 10.0)]).astype(dtype)
    values = np.concatenate([edges, numbers, edges[:4]])
    columns = [rng.permutation(values) for _ in range(FUNCTIONS[name].arity)]
    expected = run(name, dtype, *columns)
    for lanes in {1, 2, native // 2, 2 * native}:
        image = LoadedObject(
            compile_object(loop_text(name, dtype, target, lanes), target, passes=0), ("k",)
        )
        got = np.empty_like(expected)
        pointers = [ctypes.c_void_p] * (len(columns) + 1)
        function = ctypes.CFUNCTYPE(None, *pointers, ctypes.c_int64)(image.address("k"))
        function(*(a.ctypes.data for a in (*columns, got)), got.size)
        assert same_bits(got, expected), lanes


def _piece_ends(pieces: Pieces) -> np.ndarray:
    number = np.arange(len(pieces.values))
    octaves, steps = np.divmod(number, pieces.per_octave)
    ends = 2.0**octaves * (1 + steps / pieces.per_octave)
    return np.concatenate([(ends - 1) / pieces.scale, [pieces.limit]])


def _seams(name: str, dtype: str) -> np.ndarray:
    """Arguments where one polynomial of a table ends and the next begins, and where ranges end."""
    kind = "f32" if dtype == "f4" else "f64"
    choice = {"tanh": TANH, "erf": ERF, "erfc": ERFCX}.get(name)
    if choice is not None:
        seams = [_piece_ends(pieces) for (k, _), pieces in choice.items() if k == kind]
        return np.concatenate(seams)
    if name.startswith("log"):
        mantissas = np.concatenate([[0.7071067811865476], np.arange(12, 24) / 16])
        found = np.concatenate([mantissas * 2.0**e for e in (-20, -1, 0, 1, 20)])
        return found - 1 if name == "log1p" else found
    # Exponentials: halves of the table's step, in the units of 2^x.
    halves = np.arange(-65, 66) / 32
    halves = np.concatenate([halves, np.arange(-40, 40) + 0.5])
    return halves if name == "exp2" else halves * math.log(2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "sign"),
    [
        *((n, 1) for n in ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p")),
        *((n, 1) for n in ("tanh", "erf", "sigmoid")),
        ("erfc", -1),
    ],
)
def test_monotonic_functions_do_not_turn_at_the_seams(
    name: str, sign: int, dtype: str, any_level: str
) -> None:
    """Next to a seam no result lies more than one place on the wrong side of its neighbour's."""
    seams = _seams(name, dtype).astype(dtype)
    for start in (seams, -seams):
        x = [start]
        for _ in range(6):
            x.append(np.nextafter(x[-1], np.asarray(np.inf, dtype)))
            x.insert(0, np.nextafter(x[0], np.asarray(-np.inf, dtype)))
        columns = np.stack(x, axis=1)
        y = run(name, dtype, columns.ravel()).reshape(columns.shape)
        with np.errstate(invalid="ignore"):
            steps = sign * np.diff(y, axis=1)
            backwards = steps < -np.spacing(np.abs(y[:, 1:]))
        assert not backwards.any(), columns[:, 1:][backwards]


def _validation_sets() -> list[Path]:
    folder = Path(np.__file__).parent / "_core" / "tests" / "data"
    names = {f"umath-validation-set-{name}.csv": name for name in FUNCTIONS}
    return [
        path for path in sorted(folder.glob("umath-validation-set-*.csv")) if path.name in names
    ]


@pytest.mark.parametrize("path", _validation_sets(), ids=lambda p: p.stem.split("-")[-1])
def test_numpy_validation_set(path: Path, any_level: str) -> None:
    """Columns: dtype, hexadecimal input, output, and the error in ULP that NumPy allows itself."""
    name = path.stem.split("-")[-1]
    lines = [s for s in path.read_text().splitlines() if s.startswith("np.")]
    for dtype, label in zip(DTYPES, ("np.float32", "np.float64"), strict=True):
        rows = [s.split(",") for s in lines if s.startswith(label)]
        if not rows:
            continue
        width = np.dtype(dtype).itemsize
        x, expected = (
            np.array([int(r[i], 16) for r in rows], dtype=f"u{width}").view(dtype) for i in (1, 2)
        )
        got = run(name, dtype, x)
        assert np.array_equal(np.isnan(got), np.isnan(expected))
        limits = np.array([int(r[3]) for r in rows])
        ordinary = ~np.isnan(expected)
        truth = Reference(expected.astype(np.float64), np.zeros(expected.size))
        errors = ulp_errors(got, truth)
        assert np.all(errors[ordinary] <= np.maximum(limits[ordinary], 1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_function_compiles_for_every_level(dtype: str) -> None:
    """AVX-512 has paths of its own (``avx512.py``), which a lesser machine cannot run."""
    for name in FUNCTIONS:
        assert compile_object(kernel_text(name, dtype, LEVELS["avx512"]), LEVELS["avx512"])
    text = assembly(kernel_text("exp", dtype, LEVELS["avx512"]), LEVELS["avx512"])
    assert "vscalefp" in text
    assert "zmm" in text
    text = assembly(kernel_text("log", dtype, LEVELS["avx512"]), LEVELS["avx512"])
    assert "vgetmantp" in text
    assert "call" not in text  # no range checks, no cold function


@pytest.mark.parametrize(("name", "seconds"), [("exp", 0.015), ("log", 0.03), ("power", 0.06)])
def test_compile_time_of_a_small_kernel(name: str, seconds: float) -> None:
    target = cpu.target()
    text = kernel_text(name, "f4", target)
    compile_object(text, target)
    times = []
    for _ in range(5):
        started = time.thread_time()
        compile_object(text, target)
        times.append(time.thread_time() - started)
    # Three times the goal: a shared or slow machine is no reason to fail.
    assert min(times) <= 3 * seconds


@pytest.mark.parametrize("dtype", DTYPES)
def test_ldexp_rounds_once_in_the_whole_range(dtype: str, any_level: str) -> None:
    info = np.finfo(dtype)
    span = 2 * (info.maxexp - info.minexp + info.nmant) + 40
    x = np.array([1.0, -1.5, 1.0 + float(info.eps), 2.0 - float(info.eps), 3e-39, 5e-324, 0.0, INF])
    with np.errstate(all="ignore"):
        x = np.concatenate([x, [float(info.max), float(info.tiny) / 3, NAN, -0.0]]).astype(dtype)
    columns = [
        np.ascontiguousarray(c.ravel()) for c in np.meshgrid(x, np.arange(-span // 2, span // 2))
    ]
    columns[1] = columns[1].astype(f"i{np.dtype(dtype).itemsize}")
    got = np.empty_like(columns[0])
    target = cpu.target()
    element = F32 if dtype == "f4" else F64
    module = Module(target)
    b = module.define("k", VOID, [("x", PTR), ("n", PTR), ("y", PTR), ("size", I64)])
    source, exponents, result, size = b.parameters

    def body(i: Value, _: list[Value]) -> list[Value]:
        n = b.load(b.element(exponents, i, integer_type(element)), integer_type(element))
        y = ldexp(b, b.load(b.element(source, i, element), element), n)
        b.store(y, b.element(result, i, element))
        return []

    b.loop(const(0, I64), size, 1, [], body)
    b.ret()
    image = LoadedObject(compile_object(module.text(), target), ("k",))
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, ctypes.c_int64)(image.address("k"))
    function(*(a.ctypes.data for a in (*columns, got)), got.size)
    with np.errstate(all="ignore"):
        assert same_bits(got, np.ldexp(columns[0], columns[1].astype("i4")))


def test_one_body_serves_all_calls_of_a_module() -> None:
    assert kernel_text("power", "f8", cpu.target()).count("@tj.power.general.v") == 2
    assert Kernel("exp", "f4", cpu.target()).arity == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exp", "log", "tanh"])
def test_every_float32(name: str) -> None:
    from benchmarks.ulp import measure_every_float

    found = measure_every_float(name, cpu.host_level())
    assert found.largest <= 1.5, found.worst


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 40, 48, 63, 65, 100])
def test_loops_of_several_vectors_have_the_bits_of_their_tails(
    dtype: str, size: int, any_level: str
) -> None:
    """A function takes the vectors of a step as one; what does not vary along it is splatted."""

    def function(x: np.ndarray, rate: np.ndarray) -> tuple[np.ndarray, ...]:
        rows = np.arctan2(np.exp(x), rate[:, None])  # a vector with a scalar
        return rows, np.power(np.abs(x), 0.7) + np.sin(x), rows.max(1)

    rng = np.random.default_rng(5)
    x = rng.normal(0, 20, (3, 100)).astype(dtype)
    x[:, ::13], x[1, 5], x[2, 33], x[0, 1] = 0.0, np.nan, np.inf, -np.inf
    rate = rng.normal(size=3).astype(dtype)
    rows, other, _ = tj.trace(function, x, rate)(x, rate)
    part = x[:, :size].copy()
    first, second, greatest = tj.trace(function, part, rate)(part, rate)
    assert same_bits(first, rows[:, :size])
    assert same_bits(second, other[:, :size])
    np.testing.assert_array_equal(greatest, first.max(1))
    with np.errstate(invalid="ignore"):
        expected = function(part.astype("f8"), rate.astype("f8"))
    np.testing.assert_allclose(first, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(second, expected[1], rtol=1e-5, atol=1e-5)
