"""Every distribution beside PyTorch's: samples, densities, moments, gradients, divergences, errors and printing."""

from __future__ import annotations

import importlib
import itertools
import warnings

import numpy as np
import pytest

import graphtorch
from tests.probability.distribution_cases import cases

torch = pytest.importorskip("torch")

CASES = cases()
NAMES = [f"{i}-{name}" for i, (name, _) in enumerate(CASES)]
# PyTorch approximates how gamma and beta numbers move with their parameters to about 1e-3; ours is exact to 1e-9.
IMPLICIT = {"Gamma", "InverseGamma", "Chi2", "StudentT", "FisherSnedecor", "Beta", "Dirichlet", "Wishart"}
BOTH = (torch, graphtorch)


@pytest.fixture(autouse=True)
def validated():
    """PyTorch's compiler, once imported, turns the checks of all distributions off."""
    torch.distributions.Distribution.set_default_validate_args(True)


def make(library, name, arguments, dtype="float64", requires_grad=False):
    """The distribution, and its tensor arguments."""
    made = {}
    for key, value in arguments.items():
        if isinstance(value, np.ndarray):
            value = library.from_numpy(value.astype(dtype))
            if requires_grad:
                value.requires_grad_()
        made[key] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = library.distributions
        if name == "LogitRelaxedBernoulli":
            module = importlib.import_module(f"{library.__name__}.distributions.relaxed_bernoulli")
        return getattr(module, name)(**made), [v for v in made.values() if hasattr(v, "grad_fn")]


def array(tensor):
    return tensor.detach().numpy()


def attempt(action):
    """A result, or the class of the error."""
    try:
        return action()
    except (NotImplementedError, AttributeError, ValueError, RuntimeError) as error:
        return type(error)


def same(ours, theirs, rtol=1e-6, what=""):
    if isinstance(theirs, type) or isinstance(ours, type):
        assert ours == theirs, f"{what}: {ours} {theirs}"
        return
    assert tuple(ours.shape) == tuple(theirs.shape), f"{what}: {ours.shape} {theirs.shape}"
    assert str(ours.dtype) == str(theirs.dtype), f"{what}: {ours.dtype} {theirs.dtype}"
    np.testing.assert_allclose(array(ours), array(theirs), rtol=rtol, atol=rtol, err_msg=what)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "arguments"), CASES, ids=NAMES)
def test_samples_densities_and_moments(name, arguments, dtype):
    if name == "GeneralizedPareto" and dtype == "float64":
        pytest.skip("PyTorch's mixes dtypes")
    rtol = 1e-6 if dtype == "float64" else 2e-4
    found = []
    for library in BOTH:
        distribution, _ = make(library, name, arguments, dtype)
        library.manual_seed(1)
        sample = distribution.sample((4,))
        found.append((distribution, sample))
    (theirs, their_sample), (ours, our_sample) = found
    assert repr(ours) == repr(theirs)
    assert tuple(ours.batch_shape) == tuple(theirs.batch_shape)
    assert tuple(ours.event_shape) == tuple(theirs.event_shape)
    same(our_sample, their_sample, rtol, "sample")
    given = graphtorch.from_numpy(array(their_sample).copy())
    same(attempt(lambda: ours.log_prob(given)), attempt(lambda: theirs.log_prob(their_sample)), rtol, "log_prob")
    for what in ("mean", "variance", "stddev", "mode"):
        same(attempt(lambda: getattr(ours, what)), attempt(lambda: getattr(theirs, what)), rtol, what)
    same(attempt(ours.entropy), attempt(theirs.entropy), rtol, "entropy")
    same(attempt(lambda: ours.cdf(given)), attempt(lambda: theirs.cdf(their_sample)), rtol, "cdf")
    quantile = np.full(ours.batch_shape, 0.3, dtype)
    same(
        attempt(lambda: ours.icdf(graphtorch.from_numpy(quantile))),
        attempt(lambda: theirs.icdf(torch.from_numpy(quantile))),
        rtol,
        "icdf",
    )
    same(attempt(ours.enumerate_support), attempt(theirs.enumerate_support), rtol, "enumerate_support")
    assert repr(ours.support) == repr(theirs.support)
    same(ours.support.check(given), theirs.support.check(their_sample), what="support")
    # The same numbers of a larger batch
    shape = (2, *ours.batch_shape)
    graphtorch.manual_seed(2)
    torch.manual_seed(2)
    same(ours.expand(shape).sample(), theirs.expand(shape).sample(), rtol, "expand")


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=NAMES)
def test_gradients(name, arguments):
    def run(library):
        found = {}
        distribution, _ = make(library, name, arguments)
        library.manual_seed(3)
        value = distribution.sample((3,))
        for what, action in {
            "log_prob": lambda d: d.log_prob(value),
            "entropy": lambda d: d.entropy(),
            "rsample": lambda d: d.rsample((3,)),
        }.items():
            distribution, leaves = make(library, name, arguments, requires_grad=True)
            library.manual_seed(4)
            result = attempt(lambda d=distribution, run=action: run(d))
            if isinstance(result, type):
                found[what] = result
                continue
            if not result.requires_grad:
                found[what] = result
                continue
            gradients = attempt(
                lambda r=result, leaves=leaves: library.autograd.grad(r.square().sum(), leaves, allow_unused=True)
            )
            if isinstance(gradients, type):
                found[what] = gradients
                continue
            found[what] = [None if g is None else array(g) for g in gradients]
        return found

    theirs, ours = run(torch), run(graphtorch)
    assert theirs.keys() == ours.keys()
    for what, expected in theirs.items():
        if expected is RuntimeError and name in {"GeneralizedPareto", "Wishart"}:
            continue  # PyTorch mixes dtypes in float64, or writes over a mask that its backward needs
        if not isinstance(expected, list):
            same(ours[what], expected, what=what)
            continue
        rtol = 3e-3 if what == "rsample" and name in IMPLICIT else 1e-6
        for mine, other in zip(ours[what], expected, strict=True):
            assert (mine is None) == (other is None), what
            if mine is not None:
                np.testing.assert_allclose(mine, other, rtol=rtol, atol=rtol * (1 + np.abs(other).max()), err_msg=what)


SCALAR = [(n, a) for n, a in cases(7) if n not in {"LKJCholesky", "Wishart"}]


def test_divergences_of_all_pairs():
    others = cases(11)
    count = 0
    for (p_name, p_arguments), (q_name, q_arguments) in itertools.product(SCALAR, others):
        results = []
        for library in BOTH:
            p, _ = make(library, p_name, p_arguments)
            q, _ = make(library, q_name, q_arguments)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results.append(attempt(lambda p=p, q=q, lib=library: lib.distributions.kl_divergence(p, q)))
        same(results[1], results[0], 1e-6, f"{p_name} {p_arguments} || {q_name} {q_arguments}")
        count += not isinstance(results[0], type)
    assert count > 100


@pytest.mark.parametrize(
    "make_transform",
    [
        lambda t, lib: t.ExpTransform(),
        lambda t, lib: t.SigmoidTransform(),
        lambda t, lib: t.TanhTransform(),
        lambda t, lib: t.SoftplusTransform(),
        lambda t, lib: t.AffineTransform(1.5, -2.0),
        lambda t, lib: t.AffineTransform(lib.tensor([1.0, 2.0, 3.0]), lib.tensor([0.5, -1.0, 2.0]), event_dim=1),
        lambda t, lib: t.PowerTransform(lib.tensor(2.0)).inv,
        lambda t, lib: t.StickBreakingTransform(),
        lambda t, lib: t.CorrCholeskyTransform(),
        lambda t, lib: t.ComposeTransform([t.AffineTransform(0.5, 2.0), t.TanhTransform()]),
        lambda t, lib: t.IndependentTransform(t.ExpTransform(), 1),
        lambda t, lib: t.ReshapeTransform((3,), (3, 1)),
        lambda t, lib: t.CatTransform([t.ExpTransform(), t.AffineTransform(1.0, 2.0)], dim=-1, lengths=[1, 2]),
        lambda t, lib: t.StackTransform([t.ExpTransform(), t.TanhTransform(), t.SigmoidTransform()], dim=-1),
        lambda t, lib: t.CumulativeDistributionTransform(lib.distributions.Normal(0.0, 1.0)),
        lambda t, lib: t.SoftmaxTransform(),
        lambda t, lib: t.AbsTransform(),
    ],
)
def test_transforms(make_transform):
    x = np.random.default_rng(0).uniform(0.1, 1.0, (4, 3)).astype(np.float32)
    results = []
    for library in BOTH:
        transform = make_transform(library.distributions.transforms, library)
        y = transform(library.from_numpy(x))
        results.append(
            {
                "repr": repr(transform),
                "forward": y,
                "back": transform.inv(y),
                "det": attempt(lambda t=transform, y=y, lib=library: t.log_abs_det_jacobian(lib.from_numpy(x), y)),
                "domain": repr(transform.domain),
                "codomain": repr(transform.codomain),
                "bijective": transform.bijective,
                "shape": tuple(transform.forward_shape((4, 3))),
                "cached": attempt(lambda t=transform, lib=library: t.with_cache()(lib.from_numpy(x))),
            }
        )
    theirs, ours = results
    for what, expected in theirs.items():
        if hasattr(expected, "detach") or isinstance(expected, type):
            same(ours[what], expected, 2e-5, what)
        else:
            assert ours[what] == expected, what


def test_constraints_have_transforms():
    for name in ("real", "positive", "unit_interval", "simplex", "lower_cholesky", "corr_cholesky", "real_vector"):
        results = []
        for library in BOTH:
            d = library.distributions
            for registry in (d.biject_to, d.transform_to):
                found = attempt(lambda r=registry, d=d: r(getattr(d.constraints, name)))
                results.append(found if isinstance(found, type) else repr(found))
        assert results[:2] == results[2:], name
    interval = graphtorch.distributions.constraints.interval(-1.0, 2.0)
    moved = graphtorch.distributions.biject_to(interval)(graphtorch.tensor([-3.0, 0.0, 5.0]))
    assert bool(interval.check(moved).all())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda d, t: d.Normal(0.0, -1.0),
        lambda d, t: d.Normal(0.0, 1.0).log_prob(t.tensor(float("nan"))),
        lambda d, t: d.Normal(t.zeros(2), t.ones(2)).log_prob(t.zeros(3)),
        lambda d, t: d.Bernoulli(probs=t.tensor([0.5, 1.5])),
        lambda d, t: d.Bernoulli(),
        lambda d, t: d.Bernoulli(0.5).log_prob(t.tensor(0.3)),
        lambda d, t: d.Categorical(probs=t.tensor(0.5)),
        lambda d, t: d.Categorical(logits=t.zeros(3)).log_prob(t.tensor(3)),
        lambda d, t: d.Categorical(probs=t.tensor([-0.5, 1.5])),
        lambda d, t: d.Uniform(1.0, 0.0),
        lambda d, t: d.Dirichlet(t.tensor(1.0)),
        lambda d, t: d.MultivariateNormal(t.zeros(2)),
        lambda d, t: d.MultivariateNormal(t.zeros(2), -t.eye(2)),
        lambda d, t: d.MultivariateNormal(t.tensor(0.0), t.eye(2)),
        lambda d, t: d.Independent(d.Normal(0.0, 1.0), 1),
        lambda d, t: d.kl_divergence(d.Normal(0.0, 1.0), d.Poisson(1.0)),
        lambda d, t: d.Normal("a", 1.0),
        lambda d, t: d.Multinomial(t.tensor(3), t.ones(3)),
        lambda d, t: d.Distribution().rsample(),
        lambda d, t: d.LKJCholesky(1),
        lambda d, t: d.TransformedDistribution(d.Normal(0.0, 1.0), 3),
    ],
)
def test_errors(wrong):
    errors = []
    for library in BOTH:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(Exception) as error:
                wrong(library.distributions, library)
        errors.append(error)
    assert errors[1].type is errors[0].type
    theirs, ours = (" ".join(str(e.value).partition("\n")[0].split()) for e in errors)
    assert ours.replace("graphtorch.", "torch.") == theirs


def test_implicit_gradients_are_derivatives_of_quantiles():
    """-(dF/da) / f, with dF/da from differences of the distribution function."""
    rng = np.random.default_rng(0)
    a, h = rng.uniform(0.2, 30.0, 200), 1e-4
    shapes = graphtorch.from_numpy(a).requires_grad_()
    graphtorch.manual_seed(0)
    drawn = graphtorch._standard_gamma(shapes)
    (slope,) = graphtorch.autograd.grad(drawn.sum(), shapes)
    x = drawn.detach()

    def below(shift):
        return graphtorch.special.gammainc(graphtorch.from_numpy(a + shift), x)

    moved = (8 * (below(h) - below(-h)) - (below(2 * h) - below(-2 * h))) / (12 * h)
    density = graphtorch.distributions.Gamma(graphtorch.from_numpy(a), 1.0).log_prob(x).exp()
    sound = array(density) > 1e-3  # elsewhere the differences have lost their digits
    np.testing.assert_allclose(array(slope)[sound], array(-moved / density)[sound], rtol=1e-6)


def test_cholesky_ex_tells_where_there_is_no_factor():
    matrices = np.stack([np.eye(3), np.diag([1.0, -1.0, 1.0]), np.zeros((3, 3)), 2 * np.eye(3)])
    for function, fields in (("cholesky_ex", ("L", "info")), ("inv_ex", ("inverse", "info"))):
        theirs = getattr(torch.linalg, function)(torch.from_numpy(matrices))
        ours = getattr(graphtorch.linalg, function)(graphtorch.from_numpy(matrices))
        np.testing.assert_array_equal(array(ours.info), theirs.info.numpy())
        good = array(ours.info) == 0
        np.testing.assert_allclose(array(getattr(ours, fields[0]))[good], getattr(theirs, fields[0]).numpy()[good])
        assert np.isnan(array(getattr(ours, fields[0]))[~good]).all()
        compiled = graphtorch.compile(getattr(graphtorch.linalg, function), fullgraph=True)(
            graphtorch.from_numpy(matrices)
        )
        np.testing.assert_array_equal(array(compiled[1]), theirs.info.numpy())
        with pytest.raises(graphtorch.linalg.LinAlgError):
            getattr(graphtorch.linalg, function)(graphtorch.from_numpy(matrices), check_errors=True)
    vector = graphtorch.linalg.solve_ex(
        graphtorch.from_numpy(matrices), graphtorch.ones(4, 3, dtype=graphtorch.float64)
    )
    assert array(vector.info).tolist() == [0, 0, 1, 0] and np.isnan(array(vector.result)[2]).all()
