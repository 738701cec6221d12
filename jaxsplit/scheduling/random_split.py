"""A split of the band by chance, the baseline of an optimised one."""

import jax
import jax.numpy as jnp


def random_bandwidth(key: jax.Array, mask: jax.Array, total_hz: jax.Array) -> jax.Array:
    r"""Shares drawn uniformly from all splits of the band (a baseline of SFT's Fig. 9).

    $b_n = B\, e_n / \sum_m e_m$ with independent exponential $e_n$ is uniform on the simplex,
    Dirichlet(1).

    Args:
      key: PRNG key.
      mask: who shares the band, bool, shape [N].
      total_hz: B in Hz, scalar.

    Returns:
      Hz, shape [N]: > 0 in the set, 0 elsewhere; zeros for an empty set.

    Example:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> mask = jnp.array([True, False, True])
      >>> bandwidth_hz = random_bandwidth(jax.random.key(0), mask, jnp.float32(2e6))
      >>> float(bandwidth_hz[1]), round(float(bandwidth_hz.sum()))
      (0.0, 2000000)
    """
    total_hz = jnp.asarray(total_hz, jnp.result_type(total_hz, float))
    # Never 0, as no draw is 0 or 1: a device without band would never finish.
    least = jnp.finfo(total_hz.dtype).tiny
    uniform = jax.random.uniform(key, mask.shape, total_hz.dtype, minval=least)
    weight = jnp.where(mask, -jnp.log(uniform), 0)
    return total_hz * (weight / jnp.where(jnp.any(mask), jnp.sum(weight), 1))
