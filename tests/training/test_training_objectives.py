"""The losses against implementations of their own: NumPy and SciPy by the papers' formulas, and torch; float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import torch

from jepa_jax.errors import ArgumentError
from jepa_jax.training.objectives import (
    LeJEPA,
    VICReg,
    embedding_rank,
    epps_pulley,
    invariance,
    random_directions,
    sigreg,
    whiten,
)

TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def views():
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 40, 5)) @ rng.normal(size=(5, 5)) + 0.3


def numpy_epps_pulley(samples):
    """One direction, by the definition: complex exponentials, all 17 points, trapezoids written out."""
    points = np.linspace(-4, 4, 17)
    empirical = np.array([np.mean(np.exp(1j * t * samples)) for t in points])
    integrand = np.abs(empirical - np.exp(-(points**2) / 2)) ** 2 * np.exp(-(points**2) / 2)
    return len(samples) * sum((integrand[i] + integrand[i + 1]) / 2 * 0.5 for i in range(16))


def test_sigreg_equals_numpy(views):
    with jax.enable_x64(True):
        key = jax.random.key(3)
        ours = sigreg(jnp.asarray(views[0]), key, directions=16)
        directions = np.asarray(random_directions(key, 5, 16, jnp.dtype("float64")))
        assert np.allclose(np.linalg.norm(directions, axis=0), 1, atol=1e-12)
        wanted = np.mean([numpy_epps_pulley(views[0] @ u) for u in directions.T])
        assert float(ours) == pytest.approx(wanted, rel=TOLERANCE)


def test_the_trapezoids_are_the_integral(views):
    """Seventeen points suffice: SciPy's adaptive quadrature of the same integral on the whole line agrees to 1%."""
    samples = views[0][:, 0]

    def integrand(t):
        return abs(np.mean(np.exp(1j * t * samples)) - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)

    exact = len(samples) * scipy.integrate.quad(integrand, -8, 8, limit=200)[0]
    assert float(epps_pulley(jnp.asarray(samples, jnp.float32)[:, None])[0]) == pytest.approx(exact, rel=0.01)


def test_lejepa_equals_numpy(views):
    with jax.enable_x64(True):
        key = jax.random.key(1)
        loss, terms = LeJEPA(weight=0.1, directions=8)(jnp.asarray(views), key)
        apart = np.mean((views - views.mean(0)) ** 2)
        spread = []
        for view, k in zip(views, jax.random.split(key, 3), strict=True):
            directions = np.asarray(random_directions(k, 5, 8, jnp.dtype("float64")))
            spread.append(np.mean([numpy_epps_pulley(view @ u) for u in directions.T]))
        assert float(terms["invariance"]) == pytest.approx(apart, rel=TOLERANCE)
        assert float(loss) == pytest.approx(0.9 * apart + 0.1 * np.mean(spread), rel=TOLERANCE)


def test_vicreg_equals_the_authors_torch_code(views):
    """Facebook's main_vicreg.py for two views, its coefficients 25, 25, 1."""
    x, y = (torch.tensor(view) for view in views[:2])
    repr_loss = torch.nn.functional.mse_loss(x, y)
    x, y = x - x.mean(dim=0), y - y.mean(dim=0)
    std_loss = sum(torch.mean(torch.relu(1 - torch.sqrt(z.var(dim=0) + 0.0001))) / 2 for z in (x, y))
    cov_loss = 0
    for z in (x, y):
        cov = (z.T @ z) / (len(z) - 1)
        off_diagonal = cov.flatten()[:-1].view(4, 6)[:, 1:].flatten()
        cov_loss += off_diagonal.pow(2).sum().div(5)
    # The authors add the covariance terms of the two views; here it is the mean, so that views may be many.
    wanted = 25 * repr_loss + 25 * std_loss + 0.5 * cov_loss
    with jax.enable_x64(True):
        loss, _ = VICReg()(jnp.asarray(views[:2]), jax.random.key(0))
        assert float(loss) == pytest.approx(float(wanted), rel=TOLERANCE)


def test_whitened_embeddings_have_the_unit_covariance(views):
    white = np.asarray(whiten(jnp.asarray(views.reshape(-1, 5), jnp.float32)))
    assert np.allclose(white.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(white.T @ white / len(white), np.eye(5), atol=5e-3)


def test_invariance_of_two_views_is_a_quarter_of_their_squared_distance(views):
    two = jnp.asarray(views[:2], jnp.float32)
    assert float(invariance(two)) == pytest.approx(float(jnp.mean((two[0] - two[1]) ** 2)) / 4, rel=1e-5)


def test_sigreg_is_least_for_a_standard_normal():
    samples = np.random.default_rng(0).normal(size=(2000, 6)).astype(np.float32)
    key = jax.random.key(0)
    normal = float(sigreg(jnp.asarray(samples), key))
    assert normal < 1.5
    others = {
        "shifted": samples + 0.5,
        "wide": 1.5 * samples,
        "collapsed": 0 * samples,
        "flat": samples * [1, 1, 1, 0, 0, 0],
    }
    for name, other in others.items():
        assert float(sigreg(jnp.asarray(other, jnp.float32), key)) > 10 * normal, name


def test_effective_rank_counts_dimensions():
    z = np.random.default_rng(0).normal(size=(4000, 8)).astype(np.float32)
    assert float(embedding_rank(jnp.asarray(z))) == pytest.approx(8, rel=0.02)
    assert float(embedding_rank(jnp.asarray(z).at[:, 2:].set(0.0))) == pytest.approx(2, rel=0.02)
    assert float(embedding_rank(jnp.zeros((10, 8)))) <= 1.0


def test_a_weight_outside_its_range_is_refused():
    with pytest.raises(ArgumentError, match=r"weight=1\.5"):
        LeJEPA(weight=1.5)
