"""How evenly a resource was shared."""

import jax
import jax.numpy as jnp


def jain_index(shares: jax.Array) -> jax.Array:
    r"""Jain's fairness index, $\frac{(\sum_n x_n)^2}{N \sum_n x_n^2}$ (Jain, Chiu and Hawe 1984).

    Args:
      shares: x >= 0, what each device got (rounds, bits, Hz), shape [..., N].

    Returns:
      Shape [...]: 1 for equal shares, K/N where K devices share equally and the others get
      nothing, 1 where nobody gets anything.

    Example:
      >>> import jax.numpy as jnp
      >>> print(jain_index(jnp.array([[2.0, 2.0, 2.0, 2.0], [5.0, 0.0, 0.0, 0.0]])))
      [1.   0.25]
    """
    total = jnp.sum(shares, axis=-1)
    squares = shares.shape[-1] * jnp.sum(shares * shares, axis=-1)
    nobody = squares == 0
    return jnp.where(nobody, 1, total * total / jnp.where(nobody, 1, squares))
