"""The operations of a device, each compared with its NumPy equivalent."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xnn.backends import DeviceError, denormals, formulas, select
from xnn.backends.cpu import CpuBackend

from .helpers import matrix


@pytest.fixture
def backend(device):
    return select(device)


def padded(backend, array):
    """Return the same matrix with padding after each row."""
    out = matrix(backend, *array.shape, array.dtype)
    backend.copy(backend.upload(array), out)
    return out


@given(
    m=st.integers(1, 9),
    k=st.one_of(st.integers(1, 40), st.integers(60, 200)),
    n=st.integers(1, 9),
    layouts=st.tuples(*[st.sampled_from(["rows", "columns", "padded", "padded columns"])] * 2),
    out_is_padded=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
    alpha=st.floats(-2, 2),
    beta=st.sampled_from([0.0, 1.0, -0.5]),
    library=st.booleans(),
    compiled=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_gemm(m, k, n, layouts, out_is_padded, dtype, alpha, beta, library, compiled):
    backend = select()
    if library and hasattr(backend, "small_product"):
        backend.small_product = 0  # cuBLAS has them all
    rng = np.random.default_rng(0)
    made = {
        "rows": lambda a: backend.upload(a),
        "columns": lambda a: backend.upload(a.T).T,
        "padded": lambda a: padded(backend, a),
        "padded columns": lambda a: padded(backend, np.ascontiguousarray(a.T)).T,
    }
    a, b, c = (rng.standard_normal(s).astype(dtype) for s in ((m, k), (k, n), (m, n)))
    out = padded(backend, c) if out_is_padded else backend.upload(c.copy())
    operands = made[layouts[0]](a), made[layouts[1]](b)

    def step():
        backend.gemm(*operands, out, alpha, beta)

    (backend.compile(step) if compiled else step)()
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    wanted = alpha * (a @ b) + beta * c
    np.testing.assert_allclose(backend.download(out), wanted, rtol=tolerance, atol=tolerance * k)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("compiled", [False, True])
def test_products_of_great_depth(backend, dtype, turned, compiled, monkeypatch):
    """As the gradient of a convolution's weights; a GPU divides them, here small ones as well."""
    for name, value in (("small_product", 0), ("long_product", 64)):
        if hasattr(backend, name):
            monkeypatch.setattr(backend, name, value)
    monkeypatch.setattr("xnn.backends.gpu._LEAST", 16)
    rng, shapes = np.random.default_rng(0), ((20, 300), (300, 26))
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in shapes)
    operands = [
        backend.upload(np.ascontiguousarray(v.T)).T if turn else backend.upload(v)
        for v, turn in zip((a, b), turned, strict=True)
    ]
    out = padded(backend, np.ones((20, 26), dtype))

    def step():
        backend.gemm(*operands, out, alpha=0.5, beta=2.0)

    (backend.compile(step) if compiled else step)()
    tolerance = 1e-4 if dtype == "float32" else 1e-10
    np.testing.assert_allclose(
        backend.download(out), 0.5 * (a @ b) + 2, rtol=tolerance, atol=tolerance
    )


def test_an_array_of_either_comes_to_the_host(backend):
    given = np.arange(6.0).reshape(2, 3)
    assert backend.host(given) is given
    found = backend.host(backend.upload(given))
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, given)


def test_numbers_of_numpy_are_numbers(backend):
    """They have a dtype, and a GPU's kernel would take them for pointers."""
    a = backend.upload(np.array([1.0, 4.0], np.float32))
    backend.elementwise("a * k", a, a=a, k=np.float64(0.5))
    backend.update("a = a + k", a=a, k=np.float32(1))
    square = backend.zeros((1, 1), "f")
    backend.gemm(a[None, :], a[:, None], square, alpha=np.float64(2))
    np.testing.assert_array_equal(backend.download(a), [1.5, 3])
    np.testing.assert_array_equal(backend.download(square), [[22.5]])


@pytest.mark.parametrize("library", [False, True])
def test_gemm_reads_numbers_that_lie_in_arrays_anew_at_each_replay(backend, library):
    if library and hasattr(backend, "small_product"):
        backend.small_product = 0
    a, b, out = (
        backend.upload(np.eye(2)),
        backend.upload(np.array([[1.0, 2], [3, 4]])),
        backend.zeros((2, 2), "d"),
    )
    alpha = backend.upload(np.array(3.0))
    replay = backend.compile(lambda: backend.gemm(a, b, out, alpha=alpha, beta=1.0))
    replay()
    alpha[...] = -1
    replay()
    np.testing.assert_array_equal(backend.download(out), [[2, 4], [6, 8]])


@pytest.mark.parametrize("shapes", [((2, 3), (2, 3), (2, 3)), ((2, 3), (3, 2), (3, 3))])
def test_gemm_refuses_shapes_that_do_not_fit(backend, shapes):
    with pytest.raises(ValueError, match="gemm"):
        backend.gemm(*(backend.zeros(shape, "f") for shape in shapes))


def test_gemm_refuses_what_blas_cannot_read(backend):
    every_other = backend.zeros((4, 8), "f")[:, ::2]
    with pytest.raises(ValueError, match="strides"):
        backend.gemm(every_other, backend.zeros((4, 2), "f"), backend.zeros((4, 2), "f"))


FUNCTIONS = {
    "abs": np.abs,
    "cos": np.cos,
    "exp": np.exp,
    "float64": np.float64,
    "log": np.log,
    "log1p": np.log1p,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "sign": np.sign,
    "sin": np.sin,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
}


def expressions():
    """Formulas, each paired with its meaning in Python, where a comparison gives True, not 1."""
    names = st.sampled_from("abs").map(lambda name: (name, name))
    # Python's own numbers would raise where they are divided by zero.
    numbers = st.sampled_from(["0.5", "2"]).map(lambda number: (number, f"float64({number})"))
    leaves = st.one_of(names, numbers)

    def both(template, *parts):
        return tuple(template.format(*side) for side in zip(*parts, strict=True))

    def compare(sign, *parts):
        formula, meaning = both(f"({{}} {sign} {{}})", *parts)
        return formula, f"(1.0 * {meaning})"

    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(
                lambda s, x, y: both(f"({{}} {s} {{}})", x, y),
                st.sampled_from("+-*/"),
                inner,
                inner,
            ),
            st.builds(compare, st.sampled_from("><"), inner, inner),
            st.builds(lambda x: both("-{}", x), inner),
            st.builds(lambda x: both("({})**2", x), inner),
            st.builds(
                lambda f, x: both(f"{f}({{}})", x),
                st.sampled_from(["abs", "tanh", "sigmoid", "sign"]),
                inner,
            ),
            st.builds(
                lambda f, x, y: both(f"{f}({{}}, {{}})", x, y),
                st.sampled_from(["maximum", "minimum"]),
                inner,
                inner,
            ),
        ),
        max_leaves=12,
    )


@given(
    pair=expressions(),
    out=st.sampled_from(["new", "padded", "a", "b"]),
    shape=st.sampled_from([(3, 4), (40, 30)]),
)
@settings(max_examples=300, deadline=None)
def test_formula_means_what_python_says(pair, out, shape):
    """Also where it writes over one of its own operands."""
    formula, meaning = pair
    backend = CpuBackend()
    rng = np.random.default_rng(1)
    a, b, s = rng.standard_normal(shape), rng.standard_normal(shape), np.array(1.5)
    with np.errstate(all="ignore"):
        wanted = eval(meaning, FUNCTIONS, {"a": a, "b": b, "s": s})
        wanted = np.broadcast_to(np.asarray(wanted, float), shape).copy()
    operands = {
        "a": backend.upload(a.copy()),
        "b": backend.upload(b.copy()),
        "s": backend.upload(s),
    }
    fresh = {"new": backend.zeros(shape, "d"), "padded": matrix(backend, *shape, "d")}
    target = {**fresh, **operands}[out]
    replay = backend.compile(lambda: backend.elementwise(formula, target, **operands))
    replay()
    np.testing.assert_allclose(backend.download(target), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "formula",
    ["exp(a)", "log(a)", "sqrt(a)", "sin(a) / cos(a)", "log(maximum(a, t))", "log1p(a)", "a"],
)
def test_formulas_of_positive_numbers(backend, formula):
    a = np.random.default_rng(0).random((3, 4)) + 0.1
    out = backend.zeros((3, 4), "d")
    backend.elementwise(formula, out, a=backend.upload(a), t=0.5)
    wanted = eval(formula, FUNCTIONS, {"a": a, "t": 0.5})
    np.testing.assert_allclose(backend.download(out), wanted, rtol=1e-14)


def test_formula_of_sums_along_rows(backend):
    a, s = np.arange(6.0).reshape(2, 3), np.array([10.0, 20.0])
    out = backend.zeros((2, 3), "d")
    backend.elementwise("a * 2 - s", out, a=backend.upload(a), s=backend.upload(s)[:, None])
    np.testing.assert_array_equal(backend.download(out), a * 2 - s[:, None])


@pytest.mark.parametrize(
    "formula",
    [
        "a +",
        "a ** 3",
        "a if b else c",
        "a[0]",
        "a.T",
        "tan(a)",
        "exp(a, b)",
        "a @ b",
        "a == b",
        "True",
        "'a'",
        "1 < a < 2",
        "__import__('os')",
    ],
)
def test_formulas_have_no_more_than_both_devices_speak(formula):
    with pytest.raises(ValueError, match="formula"):
        formulas.parse(formula)


def test_softmax_row_sums_and_argmax(backend):
    z = np.random.default_rng(0).standard_normal((5, 7)) * 100
    out, sums, largest = (
        backend.zeros((5, 7), "d"),
        backend.zeros((5,), "d"),
        backend.zeros((5,), np.intp),
    )
    device_z = backend.upload(z)
    backend.softmax(device_z, out)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    np.testing.assert_allclose(backend.download(out), e / e.sum(axis=1, keepdims=True), rtol=1e-13)
    backend.row_sums(device_z, sums)
    np.testing.assert_allclose(backend.download(sums), z.sum(axis=1), rtol=1e-13)
    backend.argmax(device_z, largest)
    np.testing.assert_array_equal(backend.download(largest), z.argmax(axis=1))


def test_formula_of_a_row_a_column_a_number_and_rows_with_gaps(backend):
    rng = np.random.default_rng(0)
    a, row, column = (rng.random(shape, np.float32) for shape in ((7, 50), (1, 50), (7, 1)))
    wide = backend.zeros((7, 64), np.float32)
    operands = {
        "a": padded(backend, a),
        "b": backend.upload(row),
        "c": backend.upload(column),
        "k": 0.5,
    }
    backend.elementwise("maximum(a - b, c) * k + sigmoid(a)", wide[:, :50], **operands)
    wanted = np.maximum(a - row, column) * 0.5 + 1 / (1 + np.exp(-a))
    found = backend.download(wide)
    np.testing.assert_allclose(found[:, :50], wanted, rtol=1e-6)
    assert (found[:, 50:] == 0).all()


@pytest.mark.parametrize("source", ["uint8", "float32", "float64", "int64"])
def test_gather_picks_and_converts_rows(backend, source):
    rows = np.random.default_rng(0).integers(0, 100, (20, 6)).astype(source)
    index = np.array([3, 3, 19, 0])
    for out in (backend.zeros((4, 6), "f"), matrix(backend, 4, 6, "f")):
        backend.gather(backend.upload(rows), backend.upload(index), out)
        np.testing.assert_array_equal(backend.download(out), rows[index])


def test_arrays_begin_and_go_on_at_aligned_addresses():
    backend = CpuBackend()
    for rows, columns in ((1, 1), (30, 785), (10, 31)):
        for dtype in ("float32", "float64"):
            made = matrix(backend, rows, columns, dtype)
            assert made.shape == (rows, columns)
            assert made.ctypes.data % backend.alignment == 0
            assert made.strides[0] % backend.alignment == 0


def test_a_compiled_step_does_nothing_until_it_is_replayed(backend):
    out = backend.zeros((2,), "d")
    replay = backend.compile(lambda: backend.elementwise("x + 1", out, x=out))
    assert backend.download(out).tolist() == [0, 0]
    replay()
    replay()
    assert backend.download(out).tolist() == [2, 2]


def test_an_error_while_compiling_leaves_the_backend_as_it_was(backend):
    out = backend.zeros((2,), "d")

    def step():
        backend.elementwise("x + 1", out, x=out)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        backend.compile(step)
    backend.elementwise("x + 2", out, x=out)
    assert backend.download(out).tolist() == [2, 2]


@pytest.mark.parametrize("name", ["gpu", "cuda", "gpu:0", "cuda:3"])
def test_a_gpu_that_is_not_there(name):
    if shutil.which("nvidia-smi"):
        pytest.skip("there may be one")
    with pytest.raises(
        DeviceError, match=r"^no GPU can be used: .*\n?.*(install|update)"
    ) as caught:
        select(name)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, RuntimeError)


def test_auto_always_finds_a_device():
    assert select("auto").device in ("cpu", "gpu", "gpu:0")


def threads():
    import threadpoolctl

    libraries = threadpoolctl.threadpool_info()
    return [library["num_threads"] for library in libraries if library["user_api"] == "blas"]


def test_small_steps_train_on_one_thread_and_others_get_theirs_back():
    backend = CpuBackend()
    with backend.stage(10**9):  # also loads what there is to load
        backend.gemm(
            backend.zeros((2, 2), "f"), backend.zeros((2, 2), "f"), backend.zeros((2, 2), "f")
        )
    before = threads()
    if not before:
        pytest.skip("threadpoolctl does not know this BLAS")
    entered = [backend.stage(1000), CpuBackend().stage(1000)]
    for stage in entered:
        stage.__enter__()
        assert set(threads()) == {1}
    for stage in entered:  # in another order than that of a stack
        assert set(threads()) == {1}
        stage.__exit__(None, None, None)
    assert threads() == before
    with backend.stage(10**9):
        assert threads() == before


@given(
    statements=st.lists(
        st.tuples(st.sampled_from(["a", "b", "t", "u"]), expressions()), min_size=1, max_size=4
    ),
    size=st.sampled_from([5, 16, 50]),
)
@settings(max_examples=200, deadline=None)
def test_program_means_what_python_says(statements, size):
    """In blocks of 16 numbers; names that it assigns are its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xnn.backends.cpu._BLOCK", 128)
        backend = CpuBackend()
        rng = np.random.default_rng(1)
        names = {
            "a": rng.standard_normal(size),
            "b": rng.standard_normal(size),
            "s": np.float64(1.5),
        }
        operands = {name: backend.upload(np.array(value)) for name, value in names.items()}
        text = "; ".join(f"{name} = {formula}" for name, (formula, _) in statements)
        replay = backend.compile(lambda: backend.update(text, **operands))
        with np.errstate(all="ignore"):
            for name, (_, meaning) in statements:
                value = np.asarray(eval(meaning, FUNCTIONS, names), float)
                names[name] = np.broadcast_to(value, (size,)).copy()
        replay()
    for name in "ab":
        np.testing.assert_allclose(
            backend.download(operands[name]), names[name], rtol=1e-12, atol=1e-12
        )


def test_a_program_may_exchange_arrays(backend):
    a, b = backend.upload(np.arange(3.0)), backend.upload(np.arange(3.0) + 9)
    backend.update("t = a; a = b; b = t", a=a, b=b)
    assert backend.download(a).tolist() == [9, 10, 11]
    assert backend.download(b).tolist() == [0, 1, 2]


def test_a_program_gives_a_number_of_its_own_another_name(backend):
    a = backend.upload(np.arange(3.0))
    backend.update("t = a + 1; u = t; t = t * 2; a = u + t", a=a)
    assert backend.download(a).tolist() == [3, 6, 9]


@pytest.mark.parametrize("program", ["a + 1", "a += 1", "a[0] = 1", "a, b = 1", "a = b = 1", "a ="])
def test_programs_are_assignments(program):
    with pytest.raises(ValueError, match="is not a list of assignments"):
        formulas.program(program)


def test_programs_hold_formulas():
    with pytest.raises(ValueError, match="has an unsupported part: tan"):
        formulas.program("a = 1; b = tan(a)")


def test_arrays_of_a_program_are_of_one_kind(backend):
    for other in (backend.zeros((4,), "d"), backend.zeros((3,), "f")):
        with pytest.raises(ValueError, match="update: arrays differ in shape or dtype"):
            backend.update("a = a + b", a=backend.zeros((3,), "d"), b=other)


def test_large_formulas_are_worked_through_in_blocks():
    backend = CpuBackend()
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((300, 301)), rng.standard_normal((300, 301))
    for target in ("new", "a"):
        arrays = {
            "a": backend.upload(a.copy()),
            "b": backend.upload(b),
            "s": backend.upload(np.array([[3.0]])),
        }
        out = arrays.get(target, backend.zeros(a.shape, "d"))
        backend.elementwise("a * b + s * a", out, **arrays)
        np.testing.assert_allclose(backend.download(out), a * b + 3 * a, rtol=1e-12)


def test_a_replay_takes_denormals_for_zero_and_leaves_the_thread_as_it_was():
    if denormals._library() is None:
        pytest.skip("only on Linux")
    backend = CpuBackend()
    small = backend.upload(np.full(100, 1e-40, "f"))
    replay = backend.compile(lambda: backend.elementwise("a * 0.5", small, a=small))
    replay()
    assert not small.any()
    assert (np.full(100, 1e-40, "f") * np.float32(0.5) != 0).all()


@pytest.mark.parametrize("columns", [3, 300])  # both ways in which a CPU looks for them
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_that_are_not_finite_are_found(backend, columns, dtype):
    good = np.full((60, columns), np.finfo(dtype).max / 2, dtype)  # their sum is not finite
    assert backend.finite(backend.upload(good))
    assert not backend.finite(backend.upload(good), most=1.0)
    for bad in ([np.nan], [np.inf, -np.inf], [-np.inf]):
        values = np.zeros((60, columns), dtype)
        values[7, : len(bad)] = bad
        assert not backend.finite(backend.upload(values))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(60, 300), (60, 3), (7, 60, 12)])
@pytest.mark.parametrize(
    "part", [np.s_[..., :-1], np.s_[..., ::2], np.s_[..., 1::2, :-2], np.s_[:-1, 1:-1, :-1]]
)
def test_numbers_that_are_not_finite_are_found_where_there_are_gaps(backend, shape, part, dtype):
    if len(part) > len(shape):
        part = part[1:]
    for bad in (np.nan, np.inf, -np.inf):
        values = np.full(shape, bad, dtype)
        values[part] = 1
        assert backend.finite(backend.upload(values)[part])
        one = np.ones(shape, dtype)
        one[part][(-1,) * len(shape)] = bad
        assert not backend.finite(backend.upload(one)[part])
        assert not backend.finite(backend.upload(np.ones(shape, dtype))[part], most=0.5)
