"""What is kept of a Jacobian J [K, D]: a factor of about K x K numbers that knows J J^T, and so all that scores need.

There are two kinds: a `TriangleFactor` keeps the Jacobian's own precision, a `GramFactor` squares it, and is in
float64 for that. Both are pytrees: they pass through `jax.vmap`, `jax.lax.map`, `jax.lax.all_gather` and
`jax.lax.cond`, and where these give every leaf a leading axis, the methods are meant for what lies behind it.

B [K, L] is everywhere a basis with orthonormal columns, in the factor's dtype: what is read off the factor is then of
B^T J. Projecting directions out is not the same as sorting all values and dropping the smallest, which would keep the
noise that those directions mix into their neighbours.
"""

from __future__ import annotations

import abc
import functools
from dataclasses import dataclass
from typing import Self

import jax
import jax.numpy as jnp

from jepa_jax.spectrum import jacobi


@dataclass(frozen=True)
class Factor(abc.ABC):
    """A factor of a Jacobian J [K, D].

    Attributes:
        matrix: [K, ...], as its kind says, in the units of J or their square.
    """

    matrix: jax.Array

    @property
    def dtype(self) -> jnp.dtype:
        """Of the matrix, and of everything that is read off it; float64 is read under `float64_scope`."""
        return self.matrix.dtype

    @property
    def outputs(self) -> int:
        """K."""
        return self.matrix.shape[-2]

    @classmethod
    @abc.abstractmethod
    def merge(cls, parts: Self) -> Self:
        """The factor of a Jacobian from those of parts of its columns, stacked along a leading axis [n]."""

    @abc.abstractmethod
    def singular_values(self, basis: jax.Array | None = None) -> jax.Array:
        """Singular values of B^T J, or of all of J: [L], descending.

        Where D < L, those past the rank may be missing, or be rounding noise: see `all_values`.
        """

    @abc.abstractmethod
    def left_vectors(self, basis: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Left singular vectors of B^T J as columns, [L, L], and `singular_values`; as many as there are of these."""

    @abc.abstractmethod
    def lower_triangle(self, basis: jax.Array | None = None) -> jax.Array:
        """T [L, L] with T T^T = B^T J J^T B, L <= D, without an eigensolver.

        NaN where rounding has left a square indefinite.
        """

    @abc.abstractmethod
    def norm(self) -> jax.Array:
        """|J|, the Frobenius norm."""

    @abc.abstractmethod
    def noise_along(self, direction: jax.Array) -> jax.Array:
        """|J^T n| along a unit vector n [K]: in a null direction, the norm of the rounding noise of J."""

    @abc.abstractmethod
    def crossed(self, direction: jax.Array, basis: jax.Array) -> jax.Array:
        """B^T J J^T n for a unit vector n [K]: [L]."""

    def noise_within(self, direction: jax.Array, basis: jax.Array) -> jax.Array:
        """`noise_along`, of its share in the space that the rows of B^T J span.

        With T T^T = (B^T J)(B^T J)^T the rows of T^-1 B^T J are an orthonormal basis of that space, so that the share
        of J^T n has the norm |T^-1 B^T J J^T n|.

        Args:
            direction: n [K], a unit vector.
            basis: B [K, L], L <= D.

        Returns:
            The norm; NaN where rounding has left a square indefinite.
        """
        lower, crossed = self.lower_triangle(basis), self.crossed(direction, basis)
        inside = jax.lax.linalg.triangular_solve(lower, crossed[:, None], left_side=True, lower=True)
        return jnp.linalg.norm(inside)

    def log_volume(self, basis: jax.Array) -> tuple[jax.Array, jax.Array]:
        """log det (B^T J J^T B)^(1/2) without an eigensolver, and the sum that says whether to trust it.

        Args:
            basis: B [K, L], L <= D.

        Returns:
            The sum of log singular values of B^T J, nats, NaN where a value is lost in rounding; and the sum of their
            inverse squares q. The smallest value lies between sqrt(1 / q) and sqrt(L / q).
        """
        lower = self.lower_triangle(basis)
        inverse = jax.lax.linalg.triangular_solve(
            lower, jnp.eye(lower.shape[0], dtype=lower.dtype), left_side=True, lower=True
        )
        return jnp.sum(jnp.log(jnp.abs(jnp.diagonal(lower)))), jnp.sum(inverse**2)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GramFactor(Factor):
    """J J^T, [K, K] float64.

    Squaring halves the digits: values below 1e-8 of the largest are lost in float64, which is far below the noise of
    a float32 Jacobian (3e-6) and far below any structural singular value (1e-5 for DINOv2-B). In float32 everything
    below 3e-4 would be lost.
    """

    @classmethod
    def merge(cls, parts: Self) -> Self:
        """The sum of [n, K, K]."""
        return cls(functools.reduce(jnp.add, parts.matrix))

    def singular_values(self, basis: jax.Array | None = None) -> jax.Array:
        """[L], by an eigensolver; where D < L, the surplus values are rounding noise."""
        return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(self._projected(basis))[::-1], 0.0))

    def left_vectors(self, basis: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """[L, L] and [L], by an eigensolver."""
        squares, vectors = jnp.linalg.eigh(self._projected(basis))
        return vectors[:, ::-1], jnp.sqrt(jnp.maximum(squares[::-1], 0.0))

    def lower_triangle(self, basis: jax.Array | None = None) -> jax.Array:
        """[L, L], by Cholesky; NaN where rounding leaves the square indefinite."""
        return jnp.linalg.cholesky(self._projected(basis))

    def norm(self) -> jax.Array:
        """|J|, the root of the trace."""
        return jnp.sqrt(jnp.trace(self.matrix))

    def noise_along(self, direction: jax.Array) -> jax.Array:
        """|J^T n|; noise below 1e-8 of |J| is lost in the square."""
        return jnp.sqrt(jnp.maximum(direction @ self.matrix @ direction, 0.0))

    def crossed(self, direction: jax.Array, basis: jax.Array) -> jax.Array:
        """[L]."""
        return basis.T @ (self.matrix @ direction)

    def _projected(self, basis: jax.Array | None) -> jax.Array:
        return self.matrix if basis is None else basis.T @ self.matrix @ basis


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TriangleFactor(Factor):
    """F [K, min(K, D)] with F F^T = J J^T, in the Jacobian's dtype.

    Nothing is squared: singular values are right to about the rounding unit times the largest one. F is a lower
    triangle where K < D, and the Jacobian itself where it has no more columns than rows.
    """

    @classmethod
    def of(cls, transpose: jax.Array) -> Self:
        """The factor of J^T, [D, K], by Householder QR: R^T."""
        if transpose.shape[1] >= transpose.shape[0]:
            return cls(transpose.T)
        return cls(jnp.linalg.qr(transpose, mode="r").T)

    @classmethod
    def merge(cls, parts: Self) -> Self:
        """From [n, K, L], by one more QR."""
        number, outputs, width = parts.matrix.shape
        return cls.of(parts.matrix.transpose(0, 2, 1).reshape(number * width, outputs))

    def singular_values(self, basis: jax.Array | None = None) -> jax.Array:
        """[min(L, D)], by an SVD; on TPUs by rotations, see `jepa_jax.spectrum.jacobi`."""

        def by_rotations(matrix: jax.Array) -> jax.Array:
            return jacobi.singular_values(matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T)

        by_svd = functools.partial(jnp.linalg.svd, compute_uv=False)
        return jax.lax.platform_dependent(self._projected(basis), tpu=by_rotations, default=by_svd)

    def left_vectors(self, basis: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """[L, min(L, D)] and [min(L, D)], by an SVD."""
        vectors, values, _ = jnp.linalg.svd(self._projected(basis), full_matrices=False)
        return vectors, values

    def lower_triangle(self, basis: jax.Array | None = None) -> jax.Array:
        """[L, L], by QR; its diagonal may be negative."""
        return jnp.linalg.qr(self._projected(basis).T, mode="r").T

    def norm(self) -> jax.Array:
        """|J|."""
        return jnp.linalg.norm(self.matrix)

    def noise_along(self, direction: jax.Array) -> jax.Array:
        """|J^T n|."""
        return jnp.linalg.norm(direction @ self.matrix)

    def crossed(self, direction: jax.Array, basis: jax.Array) -> jax.Array:
        """[L]; J^T n before all else, which is small."""
        return self._projected(basis) @ (direction @ self.matrix)

    def _projected(self, basis: jax.Array | None) -> jax.Array:
        return self.matrix if basis is None else basis.T @ self.matrix
