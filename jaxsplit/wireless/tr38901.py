"""Urban cells of 3GPP TR 38.901 (v17): path loss, line of sight, shadowing."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsplit.wireless.base import PathLoss
from jaxsplit.wireless.path_loss import correlated_normal

LIGHT_M_PER_S = 3.0e8  # the standard's c
MIN_DISTANCE_M = 10.0  # where the standard's formulas begin; closer devices count as here


class CellParams(NamedTuple):
    """Numbers of an urban cell; those of shadowing are the standard's for UMi."""

    carrier_hz: ArrayLike = 3.5e9  # f_c, 0.5 to 100 GHz
    server_height_m: ArrayLike = 10.0  # h_BS
    device_height_m: ArrayLike = 1.5  # h_UT, 1.5 to 22.5 m
    sight_std_db: ArrayLike = 4.0  # σ of shadowing in line of sight; 0 switches it off
    no_sight_std_db: ArrayLike = 7.82  # σ without line of sight
    sight_decorrelation_m: ArrayLike = 10.0  # of shadowing in line of sight (Table 7.5-6)
    no_sight_decorrelation_m: ArrayLike = 13.0  # ... and without
    state_decorrelation_m: ArrayLike = 50.0  # of the line of sight itself (Table 7.6.3.1-2)


class CellState(NamedTuple):
    """What the surroundings of each device decide: drawn once, changed by moving alone."""

    sight: jax.Array  # [N] standard normal z; in line of sight where Φ(z) <= probability
    shadow: jax.Array  # [N] standard normal
    environment: jax.Array  # [N] uniform on [0, 1), decides the height h_E
    position_m: jax.Array  # [N, 2] m, where these hold


def umi_sight_probability(distance_m: jax.Array) -> jax.Array:
    r"""Probability of line of sight in a street canyon (TR 38.901 Table 7.4.2-1).

    1 up to 18 m, then $\frac{18}{d} + e^{-d/36}(1 - \frac{18}{d})$.

    Args:
      distance_m: d on the ground in metres, any shape.

    Returns:
      The probability, shaped like `distance_m`.

    Example:
      >>> import jax.numpy as jnp
      >>> [round(float(p), 3) for p in umi_sight_probability(jnp.array([10.0, 36.0]))]
      [1.0, 0.684]
    """
    share = 18 / jnp.maximum(distance_m, 18)
    return share + jnp.exp(-distance_m / 36) * (1 - share)


def _height_term(distance_m: jax.Array, device_height_m: ArrayLike) -> jax.Array:
    """TR 38.901's C: 0 for devices below 13 m or within 18 m."""
    height = jnp.maximum(jnp.asarray(device_height_m) - 13, 0) / 10
    term = 1.25 * (distance_m / 100) ** 3 * jnp.exp(-distance_m / 150)
    return height**1.5 * jnp.where(distance_m <= 18, 0, term)


def uma_sight_probability(distance_m: jax.Array, device_height_m: ArrayLike) -> jax.Array:
    r"""Probability of line of sight in an urban macro cell (TR 38.901 Table 7.4.2-1).

    1 up to 18 m, then $[\frac{18}{d} + e^{-d/63}(1 - \frac{18}{d})]\,[1 + C'(h_{UT})\frac54
    (\frac{d}{100})^3 e^{-d/150}]$ with $C' = (\frac{h_{UT}-13}{10})^{1.5}$ above 13 m, else 0.

    Args:
      distance_m: d on the ground in metres, any shape.
      device_height_m: h_UT in metres.

    Returns:
      The probability, shaped like `distance_m`.

    Example:
      >>> import jax.numpy as jnp
      >>> [round(float(p), 3) for p in uma_sight_probability(jnp.array([10.0, 63.0]), 1.5)]
      [1.0, 0.548]
    """
    share = 18 / jnp.maximum(distance_m, 18)
    low = share + jnp.exp(-distance_m / 63) * (1 - share)
    # Just beyond 18 m the standard's product exceeds 1 by up to 0.7 % for high devices.
    return jnp.minimum(low * (1 + _height_term(distance_m, device_height_m)), 1)


def uma_environment_height(
    uniform: jax.Array, distance_m: jax.Array, device_height_m: ArrayLike
) -> jax.Array:
    r"""Effective environment height of an urban macro cell (TR 38.901 Table 7.4.1-1, note 1).

    $h_E = 1$ m with probability $1/(1 + C(d, h_{UT}))$, else uniform on $12, 15, \dots,
    h_{UT} - 1.5$ m. Devices below 13 m have $C = 0$.

    Args:
      uniform: one uniform number per device, in [0, 1).
      distance_m: d on the ground in metres, shaped like `uniform`.
      device_height_m: h_UT in metres.

    Returns:
      h_E in metres, shaped like `uniform`.

    Example:
      >>> import jax.numpy as jnp
      >>> uma_environment_height(jnp.array([0.1, 0.9]), jnp.array([300.0, 300.0]), 22.5)
      Array([ 1., 21.], dtype=float32)
    """
    one_metre = 1 / (1 + _height_term(distance_m, device_height_m))
    # What is left of the uniform number beyond the first choice is uniform again.
    rest = (uniform - one_metre) / jnp.where(one_metre < 1, 1 - one_metre, 1)
    choices = jnp.maximum(jnp.floor((jnp.asarray(device_height_m) - 13.5) / 3) + 1, 1)
    high = 12 + 3 * jnp.minimum(jnp.floor(rest * choices), choices - 1)
    return jnp.where(uniform < one_metre, 1, high)


def _sight_loss_db(
    distance_m: jax.Array,
    params: CellParams,
    environment_height_m: ArrayLike,
    offset: float,
    slope: float,
    bend: float,
) -> jax.Array:
    """PL1 up to the breakpoint distance d'_BP = 4 h'_BS h'_UT f_c / c, PL2 beyond."""
    carrier_hz, server_m, device_m = map(jnp.asarray, params[:3])
    high_m = (server_m - environment_height_m) * (device_m - environment_height_m)
    break_m = 4 * high_m * (carrier_hz / LIGHT_M_PER_S)
    rise_m = server_m - device_m
    log_slant = jnp.log10(jnp.hypot(distance_m, rise_m))
    near = slope * log_slant
    far = 40 * log_slant - bend * jnp.log10(break_m**2 + rise_m**2)
    shape = jnp.where(distance_m <= break_m, near, far)
    return offset + 20 * jnp.log10(carrier_hz / 1e9) + shape


def umi_loss_db(distance_m: jax.Array, params: CellParams) -> tuple[jax.Array, jax.Array]:
    r"""Path loss of a street canyon with and without line of sight (TR 38.901 Table 7.4.1-1).

    With sight $32.4 + 21\log_{10} d_{3D} + 20\log_{10} f_c$ up to the breakpoint $d'_{BP} = 4
    (h_{BS}-1)(h_{UT}-1) f_c/c$, beyond it $32.4 + 40\log_{10} d_{3D} + 20\log_{10} f_c -
    9.5\log_{10}(d'^2_{BP} + (h_{BS}-h_{UT})^2)$. Without, the maximum of that and $22.4 +
    35.3\log_{10} d_{3D} + 21.3\log_{10} f_c - 0.3(h_{UT}-1.5)$. Inside the logarithms, f_c is in
    GHz and d in metres.

    Args:
      distance_m: d on the ground in metres, any shape; below 10 m counts as 10 m, beyond 5 km
        extrapolates.
      params: the numbers of the cell.

    Returns:
      `(with_sight, without)` in dB, shaped like `distance_m`.

    Example:
      >>> import jax.numpy as jnp
      >>> sight, none = umi_loss_db(jnp.float32(100.0), CellParams(carrier_hz=1e9))
      >>> round(float(sight), 2), round(float(none), 2)
      (78.6, 93.06)
    """
    distance_m = jnp.maximum(distance_m, MIN_DISTANCE_M)
    carrier_hz, server_m, device_m = map(jnp.asarray, params[:3])
    sight = _sight_loss_db(distance_m, params, 1.0, offset=32.4, slope=21.0, bend=9.5)
    log_slant = jnp.log10(jnp.hypot(distance_m, server_m - device_m))
    none = 22.4 + 35.3 * log_slant + 21.3 * jnp.log10(carrier_hz / 1e9) - 0.3 * (device_m - 1.5)
    return sight, jnp.maximum(sight, none)


def uma_loss_db(
    distance_m: jax.Array, params: CellParams, environment_height_m: ArrayLike = 1.0
) -> tuple[jax.Array, jax.Array]:
    r"""Path loss of an urban macro cell with and without line of sight (TR 38.901 Table 7.4.1-1).

    With sight $28 + 22\log_{10} d_{3D} + 20\log_{10} f_c$ up to the breakpoint $d'_{BP} = 4
    (h_{BS}-h_E)(h_{UT}-h_E) f_c/c$, beyond it $28 + 40\log_{10} d_{3D} + 20\log_{10} f_c -
    9\log_{10}(d'^2_{BP} + (h_{BS}-h_{UT})^2)$. Without, the maximum of that and $13.54 +
    39.08\log_{10} d_{3D} + 20\log_{10} f_c - 0.6(h_{UT}-1.5)$. Inside the logarithms, f_c is in
    GHz and d in metres.

    Args:
      distance_m: d on the ground in metres, any shape; below 10 m counts as 10 m, beyond 5 km
        extrapolates.
      params: the numbers of the cell.
      environment_height_m: h_E (`uma_environment_height`).

    Returns:
      `(with_sight, without)` in dB, shaped like `distance_m`.

    Example:
      >>> import jax.numpy as jnp
      >>> macro = CellParams(carrier_hz=1e9, server_height_m=25.0)
      >>> sight, none = uma_loss_db(jnp.float32(100.0), macro)
      >>> round(float(sight), 2), round(float(none), 2)
      (72.26, 92.16)
    """
    distance_m = jnp.maximum(distance_m, MIN_DISTANCE_M)
    carrier_hz, server_m, device_m = map(jnp.asarray, params[:3])
    sight = _sight_loss_db(
        distance_m, params, environment_height_m, offset=28.0, slope=22.0, bend=9.0
    )
    log_slant = jnp.log10(jnp.hypot(distance_m, server_m - device_m))
    none = 13.54 + 39.08 * log_slant + 20 * jnp.log10(carrier_hz / 1e9) - 0.6 * (device_m - 1.5)
    return sight, jnp.maximum(sight, none)


def _cell(
    sight_probability: Callable[[jax.Array, CellParams], jax.Array],
    loss_db: Callable[[jax.Array, jax.Array, CellParams], tuple[jax.Array, jax.Array]],
    params: CellParams,
) -> PathLoss:
    """What the two scenarios share: line of sight and shadowing that stay with the place."""

    def init(key: jax.Array, position_m: jax.Array, params: CellParams) -> CellState:
        del params
        key_sight, key_shadow, key_environment = jax.random.split(key, 3)
        devices = position_m.shape[:1]
        return CellState(
            sight=jax.random.normal(key_sight, devices),
            shadow=jax.random.normal(key_shadow, devices),
            environment=jax.random.uniform(key_environment, devices),
            position_m=position_m,
        )

    def sample(
        key: jax.Array, state: CellState, position_m: jax.Array, params: CellParams
    ) -> tuple[CellState, jax.Array]:
        key_sight, key_shadow = jax.random.split(key)
        moved_m = jnp.linalg.norm(position_m - state.position_m, axis=-1)
        distance_m = jnp.linalg.norm(position_m, axis=-1)
        sight = correlated_normal(key_sight, state.sight, moved_m, params.state_decorrelation_m)
        # A device sees the server as long as its draw is below the probability where it is, so
        # that walking towards the server opens the line of sight and never closes it by chance.
        in_sight = jax.scipy.stats.norm.cdf(sight) <= sight_probability(distance_m, params)
        std_db = jnp.where(in_sight, params.sight_std_db, params.no_sight_std_db)
        decorrelation_m = jnp.where(
            in_sight, params.sight_decorrelation_m, params.no_sight_decorrelation_m
        )
        shadow = correlated_normal(key_shadow, state.shadow, moved_m, decorrelation_m)
        with_sight_db, without_db = loss_db(distance_m, state.environment, params)
        total_db = jnp.where(in_sight, with_sight_db, without_db) - std_db * shadow
        return CellState(sight, shadow, state.environment, position_m), 10 ** (-total_db / 10)

    return PathLoss(init, sample, params)


@functools.cache
def umi_path_loss() -> PathLoss:
    """3GPP urban micro street canyon, outdoors, server below the rooftops at 10 m.

    Each device draws its line of sight (`umi_sight_probability`) and its shadowing once; both
    decorrelate with the distance it moves. Loss by `umi_loss_db`, between isotropic antennas.

    Returns:
      A `PathLoss` with `CellParams`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> loss = umi_path_loss()
      >>> place = jnp.array([[3.0, 4.0], [300.0, 400.0]])
      >>> state = loss.init(jax.random.key(0), place, loss.params)
      >>> _, gain = loss.sample(jax.random.key(1), state, place, loss.params)
      >>> bool(gain[0] > gain[1])
      True
    """
    return _cell(
        lambda distance_m, params: umi_sight_probability(distance_m),
        lambda distance_m, environment, params: umi_loss_db(distance_m, params),
        CellParams(),
    )


@functools.cache
def uma_path_loss() -> PathLoss:
    """3GPP urban macro cell, outdoors, server above the rooftops at 25 m.

    As `umi_path_loss`, by `uma_sight_probability`, `uma_environment_height` and `uma_loss_db`.

    Returns:
      A `PathLoss` with `CellParams`.

    Example:
      >>> uma_path_loss().params.server_height_m
      25.0
    """

    def loss_db(
        distance_m: jax.Array, environment: jax.Array, params: CellParams
    ) -> tuple[jax.Array, jax.Array]:
        height_m = uma_environment_height(environment, distance_m, params.device_height_m)
        return uma_loss_db(distance_m, params, height_m)

    return _cell(
        lambda distance_m, params: uma_sight_probability(distance_m, params.device_height_m),
        loss_db,
        CellParams(
            server_height_m=25.0,
            no_sight_std_db=6.0,
            sight_decorrelation_m=37.0,
            no_sight_decorrelation_m=50.0,
        ),
    )
