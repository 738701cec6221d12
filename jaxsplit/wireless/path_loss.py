"""Power-law path loss, and log-normal shadowing on top of any path loss."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsplit.wireless.base import PathLoss
from jaxsplit.wireless.geometry import power_law_gain


class PowerLawParams(NamedTuple):
    """Numbers of the power law (the values are ours: FedFT's text lost its own)."""

    reference_gain_db: ArrayLike = -30.0  # C₀, gain at the reference distance
    reference_distance_m: ArrayLike = 1.0  # d₀
    path_loss_exponent: ArrayLike = 3.0  # a


@functools.cache
def power_law() -> PathLoss:
    """Path loss by `power_law_gain` (FedFT §V-A).

    Returns:
      A `PathLoss` with `PowerLawParams`, without state.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> loss = power_law()
      >>> _, gain = loss.sample(jax.random.key(0), (), jnp.array([[6.0, 8.0]]), loss.params)
      >>> gain
      Array([1.e-06], dtype=float32)
    """

    def init(key: jax.Array, position_m: jax.Array, params: PowerLawParams) -> tuple[()]:
        del key, position_m, params
        return ()

    def sample(
        key: jax.Array, state: tuple[()], position_m: jax.Array, params: PowerLawParams
    ) -> tuple[tuple[()], jax.Array]:
        del key
        return state, power_law_gain(
            jnp.linalg.norm(position_m, axis=-1),
            params.reference_gain_db,
            params.reference_distance_m,
            params.path_loss_exponent,
        )

    return PathLoss(init, sample, PowerLawParams())


def correlated_normal(
    key: jax.Array, normal: jax.Array, moved_m: jax.Array, decorrelation_m: ArrayLike
) -> jax.Array:
    r"""Standard normals that forget where they were with the distance moved.

    $z' = \varrho z + \sqrt{1-\varrho^2}\,w$, $\varrho = e^{-\Delta/d_\mathrm{cor}}$, $w \sim
    \mathcal N(0, 1)$ (Gudmundson 1991; TR 38.901 (7.4-5)). Where nothing moved, z' = z exactly.

    Args:
      key: PRNG key.
      normal: z, any shape.
      moved_m: Δ in metres, shaped like z.
      decorrelation_m: d_cor in metres, > 0, scalar or shaped like z.

    Returns:
      z', standard normal if z is.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> correlated_normal(jax.random.key(0), jnp.array([0.5]), jnp.zeros(1), 20.0)
      Array([0.5], dtype=float32)
    """
    way = moved_m / decorrelation_m
    fresh = jax.random.normal(key, normal.shape)
    return jnp.exp(-way) * normal + jnp.sqrt(-jnp.expm1(-2 * way)) * fresh


class ShadowingParams(NamedTuple):
    """Numbers of a shadowed path loss."""

    path_loss: Any  # of the path loss below
    std_db: ArrayLike = 8.0  # σ
    decorrelation_m: ArrayLike = 20.0  # d_cor, for devices that move


class ShadowingState(NamedTuple):
    """What a device's surroundings add to its path loss."""

    path_loss: Any  # of the path loss below
    normal: jax.Array  # [N] z, standard normal
    position_m: jax.Array  # [N, 2] m, where z was drawn


@functools.cache
def shadowed(path_loss: PathLoss) -> PathLoss:
    r"""Log-normal shadowing over a path loss.

    The gain is multiplied by $10^{\sigma z/10}$, $z \sim \mathcal N(0, 1)$ per device: median 1,
    mean $e^{(\sigma \ln 10/10)^2/2}$. z is drawn once per run and changes only with the device's
    place (`correlated_normal`).

    Args:
      path_loss: what is shadowed.

    Returns:
      A `PathLoss` with `ShadowingParams`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> loss = shadowed(power_law())
      >>> place = jnp.array([[6.0, 8.0]])
      >>> state = loss.init(jax.random.key(0), place, loss.params)
      >>> state, first = loss.sample(jax.random.key(1), state, place, loss.params)
      >>> state, second = loss.sample(jax.random.key(2), state, place, loss.params)
      >>> bool(first == second)  # who stands still keeps the shadow
      True
    """

    def init(key: jax.Array, position_m: jax.Array, params: ShadowingParams) -> ShadowingState:
        key_loss, key_normal = jax.random.split(key)
        return ShadowingState(
            path_loss=path_loss.init(key_loss, position_m, params.path_loss),
            normal=jax.random.normal(key_normal, position_m.shape[:1]),
            position_m=position_m,
        )

    def sample(
        key: jax.Array, state: ShadowingState, position_m: jax.Array, params: ShadowingParams
    ) -> tuple[ShadowingState, jax.Array]:
        key_loss, key_normal = jax.random.split(key)
        below, gain = path_loss.sample(key_loss, state.path_loss, position_m, params.path_loss)
        moved_m = jnp.linalg.norm(position_m - state.position_m, axis=-1)
        normal = correlated_normal(key_normal, state.normal, moved_m, params.decorrelation_m)
        shadow = 10 ** (params.std_db * normal / 10)
        return ShadowingState(below, normal, position_m), gain * shadow

    return PathLoss(init, sample, ShadowingParams(path_loss.params))
