"""Small-scale fading: channel models of mean gain 1, to be multiplied onto a path loss."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from scipy.special import j0

from jaxsplit.wireless.base import ChannelModel


class Devices(NamedTuple):
    """State of fading without memory: only how many devices there are."""

    like: jax.Array  # [N] zeros


def _devices(key: jax.Array, num_devices: int, params: object) -> Devices:
    del key, params
    return Devices(jnp.zeros(num_devices))


@functools.cache
def no_fading() -> ChannelModel:
    """Gain 1 in every round, to see the large scale alone.

    Returns:
      A `ChannelModel` without numbers.

    Example:
      >>> import jax
      >>> fading = no_fading()
      >>> fading.sample(jax.random.key(0), fading.init(jax.random.key(1), 2, ()), ())[1]
      Array([1., 1.], dtype=float32)
    """

    def sample(key: jax.Array, state: Devices, params: tuple[()]) -> tuple[Devices, jax.Array]:
        del key, params
        return state, jnp.ones_like(state.like)

    return ChannelModel(_devices, sample, ())


def exponential_power(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    r"""Power of Rayleigh fading, $g \sim \mathrm{Exp}(1)$, never 0.

    `jax.random.exponential` gives multiples of about 2⁻²³ in float32, and so a gain of 0, whose
    device would wait for ever, once in 8 million draws. Such a draw stands for the interval up to
    2⁻²³ and becomes its middle.

    Args:
      key: PRNG key.
      shape: of the draws.

    Returns:
      Gains, linear.

    Example:
      >>> import jax
      >>> exponential_power(jax.random.key(0), (3,)).shape
      (3,)
    """
    draw = jax.random.exponential(key, shape)
    return jnp.maximum(draw, jnp.finfo(draw.dtype).eps / 2)


@functools.cache
def rayleigh_fading() -> ChannelModel:
    r"""Many paths, none of them dominant: $g_n \sim \mathrm{Exp}(1)$, new each round.

    Returns:
      A `ChannelModel` without numbers; the draw is that of `rayleigh`.

    Example:
      >>> import jax
      >>> fading = rayleigh_fading()
      >>> state = fading.init(jax.random.key(0), 20, fading.params)
      >>> fading.sample(jax.random.key(1), state, fading.params)[1].shape
      (20,)
    """

    def sample(key: jax.Array, state: Devices, params: tuple[()]) -> tuple[Devices, jax.Array]:
        del params
        return state, exponential_power(key, state.like.shape)

    return ChannelModel(_devices, sample, ())


def rician_power(scatter: jax.Array, k_factor_db: ArrayLike) -> jax.Array:
    r"""Power of a direct path plus scatter.

    $g = \big|\sqrt{\tfrac{K}{K+1}} + \sqrt{\tfrac{1}{K+1}}\,h\big|^2$, mean 1 if $\mathbb
    E|h|^2 = 1$.

    Args:
      scatter: h, real and imaginary part, shape [..., 2].
      k_factor_db: K in dB, direct over scattered power; -inf leaves the scatter alone.

    Returns:
      g, shape [...].

    Example:
      >>> import jax.numpy as jnp
      >>> rician_power(jnp.array([[0.6, 0.8]]), -jnp.inf)
      Array([1.], dtype=float32)
    """
    scattered = 1 / (1 + 10 ** (jnp.asarray(k_factor_db) / 10))
    direct = jnp.sqrt(1 - scattered)
    real = direct + jnp.sqrt(scattered) * scatter[..., 0]
    return real**2 + scattered * scatter[..., 1] ** 2


def _scatter(key: jax.Array, num_devices: int) -> jax.Array:
    """Complex normals of unit power, as [N, 2]."""
    return math.sqrt(0.5) * jax.random.normal(key, (num_devices, 2))


class RicianParams(NamedTuple):
    """Numbers of Rician fading."""

    k_factor_db: ArrayLike = 9.0  # K; TR 38.901 Table 7.5-6: 9 dB on average in line of sight


@functools.cache
def rician_fading() -> ChannelModel:
    r"""A direct path of K times the power of all others, new each round.

    `rician_power` of $h \sim \mathcal{CN}(0, 1)$: mean 1, variance $(2K+1)/(K+1)^2$. K → 0 is
    Rayleigh fading, K → ∞ none.

    Returns:
      A `ChannelModel` with `RicianParams`.

    Example:
      >>> import jax
      >>> fading = rician_fading()
      >>> state = fading.init(jax.random.key(0), 20, fading.params)
      >>> fading.sample(jax.random.key(1), state, fading.params)[1].shape
      (20,)
    """

    def sample(key: jax.Array, state: Devices, params: RicianParams) -> tuple[Devices, jax.Array]:
        return state, rician_power(_scatter(key, state.like.shape[0]), params.k_factor_db)

    return ChannelModel(_devices, sample, RicianParams())


class NakagamiParams(NamedTuple):
    """Numbers of Nakagami fading."""

    shape: ArrayLike = 2.0  # m >= 1/2, dimensionless


@functools.cache
def nakagami_fading() -> ChannelModel:
    r"""Nakagami-m fading: $g_n \sim \mathrm{Gamma}(m, 1/m)$, new each round (Nakagami 1960).

    Mean 1, variance 1/m; m = 1 is Rayleigh fading, m → ∞ none.

    Returns:
      A `ChannelModel` with `NakagamiParams`.

    Example:
      >>> import jax
      >>> fading = nakagami_fading()
      >>> state = fading.init(jax.random.key(0), 20, fading.params)
      >>> fading.sample(jax.random.key(1), state, fading.params)[1].shape
      (20,)
    """

    def sample(key: jax.Array, state: Devices, params: NakagamiParams) -> tuple[Devices, jax.Array]:
        m = jnp.asarray(params.shape)
        return state, jax.random.gamma(key, m, state.like.shape) / m

    return ChannelModel(_devices, sample, NakagamiParams())


class GaussMarkovParams(NamedTuple):
    """Numbers of time-correlated fading."""

    correlation: ArrayLike = 0.9  # ρ of the amplitude from round to round, in [-1, 1]
    k_factor_db: ArrayLike = -math.inf  # K of a constant direct path; -inf: Rayleigh


class GaussMarkovState(NamedTuple):
    """The complex amplitude of the scatter."""

    scatter: jax.Array  # [N, 2] h, real and imaginary part, of unit power


@functools.cache
def gauss_markov_fading() -> ChannelModel:
    r"""Fading that remembers the last round, Rayleigh or Rician.

    $h_t = \rho h_{t-1} + \sqrt{1-\rho^2}\,w_t$, $w_t \sim \mathcal{CN}(0, 1)$, and the gain is
    `rician_power` of $h_t$. Started in its own law, so that every round has the law of the
    fading without memory. `doppler_correlation` gives ρ from motion. The gains' correlation
    over k rounds is $(2K\rho^k + \rho^{2k})/(2K + 1)$.

    Returns:
      A `ChannelModel` with `GaussMarkovParams`.

    Example:
      >>> import jax
      >>> fading = gauss_markov_fading()
      >>> still = fading.params._replace(correlation=1.0)
      >>> state = fading.init(jax.random.key(0), 1, still)
      >>> state, first = fading.sample(jax.random.key(1), state, still)
      >>> state, second = fading.sample(jax.random.key(2), state, still)
      >>> bool(first == second)
      True
    """

    def init(key: jax.Array, num_devices: int, params: GaussMarkovParams) -> GaussMarkovState:
        del params
        return GaussMarkovState(_scatter(key, num_devices))

    def sample(
        key: jax.Array, state: GaussMarkovState, params: GaussMarkovParams
    ) -> tuple[GaussMarkovState, jax.Array]:
        rho = jnp.asarray(params.correlation)
        fresh = _scatter(key, state.scatter.shape[0])
        # (1 − ρ)(1 + ρ), since 1 − ρ² would lose the digits of a ρ close to 1.
        scatter = rho * state.scatter + jnp.sqrt((1 - rho) * (1 + rho)) * fresh
        return GaussMarkovState(scatter), rician_power(scatter, params.k_factor_db)

    return ChannelModel(init, sample, GaussMarkovParams())


def doppler_correlation(speed_m_per_s: float, carrier_hz: float, interval_s: float) -> float:
    r"""Correlation of the amplitude over an interval, for `gauss_markov_fading`.

    $\rho = J_0(2\pi f_D T)$ with $f_D = v f_c/c$ (Clarke 1968; Jakes 1974): scatterers all around.

    Args:
      speed_m_per_s: v, of the device.
      carrier_hz: f_c.
      interval_s: T, from one round to the next.

    Returns:
      ρ in [-0.403, 1]; a host number.

    Example:
      >>> round(doppler_correlation(1.0, 3.5e9, 0.01), 2)  # walking, 10 ms: f_D = 11.7 Hz
      0.87
    """
    doppler_hz = speed_m_per_s * carrier_hz / 299_792_458
    return float(j0(2 * math.pi * doppler_hz * interval_s))
