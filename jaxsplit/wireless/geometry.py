"""Where the devices stand and how much power the distance costs."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def uniform_disc(
    key: jax.Array, num_devices: int, radius_m: ArrayLike, centre_m: ArrayLike
) -> jax.Array:
    r"""Positions drawn uniformly over the area of a disc.

    The radius of a uniform point has density $2\rho/R^2$, so $\rho = R\sqrt{u}$.

    Args:
      key: PRNG key.
      num_devices: N, static.
      radius_m: R in metres, scalar.
      centre_m: centre of the disc relative to the server, metres, shape [2].

    Returns:
      Positions relative to the server in metres, shape [N, 2].

    Example:
      >>> import jax, jax.numpy as jnp
      >>> xy = uniform_disc(jax.random.key(0), 1000, jnp.float32(100), jnp.zeros(2))
      >>> bool(jnp.linalg.norm(xy, axis=-1).max() <= 100)
      True
    """
    key_radius, key_angle = jax.random.split(key)
    rho = radius_m * jnp.sqrt(jax.random.uniform(key_radius, (num_devices,)))
    angle = 2 * jnp.pi * jax.random.uniform(key_angle, (num_devices,))
    offset = rho[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    return jnp.asarray(centre_m)[None, :] + offset


def power_law_gain(
    distance_m: jax.Array,
    reference_gain_db: ArrayLike,
    reference_distance_m: ArrayLike,
    exponent: ArrayLike,
) -> jax.Array:
    r"""Mean channel power gain under power-law path loss.

    $\mathbb{E}|h|^2 = C_0 (d/d_0)^{-a}$ with $d \ge d_0$ (FedFT §V-A; closer devices count as
    $d_0$, where the far-field law ends).

    Args:
      distance_m: d in metres, any shape.
      reference_gain_db: C₀ in dB, the gain at the reference distance.
      reference_distance_m: d₀ in metres.
      exponent: a, dimensionless.

    Returns:
      The linear power gain, shaped like `distance_m`.

    Example:
      >>> import jax.numpy as jnp
      >>> power_law_gain(jnp.array([1.0, 10.0]), -30.0, 1.0, 3.0)
      Array([1.e-03, 1.e-06], dtype=float32)
    """
    ratio = jnp.maximum(distance_m, reference_distance_m) / reference_distance_m
    gain_db = jnp.asarray(reference_gain_db) - 10 * jnp.asarray(exponent) * jnp.log10(ratio)
    return 10 ** (gain_db / 10)
