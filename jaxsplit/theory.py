"""What theory says about a schedule: FedFT's convergence bound, the drift-plus-penalty trade-off.

Two questions, and nothing of a run is needed to ask them but its schedule: how far from the optimum
can the loss be after rounds with K_t devices (`convergence_bound`, `head_bound`), and how far can
the online scheduler be from the best policy that knows the channels' law (`lyapunov_bounds`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxsplit.network import as_arrays


class ConvergenceParams(NamedTuple):
    """Constants of the loss and of SGD on it. None has a natural default."""

    smoothness: ArrayLike  # L_s of every local loss F_n
    pl_constant: ArrayLike  # μ <= L_s of Polyak and Łojasiewicz: ½‖∇F‖² >= μ(F − F*)
    learning_rate: ArrayLike  # η <= 1/L_s
    gradient_variance: ArrayLike  # σ², of every entry of a local gradient
    adapter_size: ArrayLike  # d_A, number of LoRA elements
    head_size: ArrayLike  # d_θ, number of elements of one device's head
    initial_gap: ArrayLike  # F_0 − F*


def convergence_bound(num_scheduled: ArrayLike, params: ConvergenceParams) -> jax.Array:
    r"""Bound on the expected optimality gap after every round, by the numbers of devices.

    $G_{t+1} = (1-\mu\eta) G_t + \frac{L_s\eta^2}{2}\sigma^2 (\frac{d_A}{K_t} + d_\theta)$,
    $G_0 = F_0 - F^*$ (FedFT Theorem 1, (13)–(16); the paper's text lost its constants, these are
    rebuilt). A round without devices takes no step, so that $G_{t+1} = G_t$ where $K_t = 0$.

    It holds for F = mean of F_n(ΔW, θ_n) and the updates (3), (4), if

    - every F_n is L_s-smooth. That F is, as the paper assumes, does not do: a head steps by
      ∂F_n/∂θ_n, which is N times the gradient of F;
    - ½(‖∂F/∂ΔW‖² + mean of ‖∂F_n/∂θ_n‖²) >= μ(F − F*), the inequality of Polyak and Łojasiewicz
      in the norm of these steps;
    - the noise of the gradients has mean 0, is independent between devices and independent of S_t;
    - for the adapters' part (`head_size` and the heads' gap 0): every g_n is an unbiased estimate
      of ∂F/∂ΔW (the i.i.d. data of the paper). Which devices S_t holds is then of no matter;
    - for the heads' part: **all devices in every round**. A head learns only in the rounds of its
      device. The paper's proof, (39), leaves this out: with fewer devices the heads' gap can exceed
      the bound (on a quadratic it does below about half of them). `head_bound` is what holds.

    Args:
      num_scheduled: K_t >= 0, shape [..., T].
      params: the constants, scalars.

    Returns:
      Shape [..., T + 1]: G_0 … G_T, index 0 the initial gap. More devices never raise it (K_t from
      1 on: an idle round adds no noise either).

    Raises:
      ValueError: a concrete number out of range (traced ones are not checked).

    Example:
      >>> import jax.numpy as jnp
      >>> params = ConvergenceParams(
      ...     smoothness=2.0, pl_constant=1.0, learning_rate=0.5, gradient_variance=0.125,
      ...     adapter_size=8, head_size=0, initial_gap=1.0,
      ... )
      >>> print(convergence_bound(jnp.array([2, 4, 0]), params))
      [1.    0.625 0.375 0.375]
    """
    _check_params(params)
    _check_range("num_scheduled", num_scheduled)
    numbers, count = as_arrays((params, num_scheduled))
    is_step = count > 0
    per_device = numbers.adapter_size / jnp.where(is_step, count, 1)  # not d_A/0
    return _gap_path(is_step, _noise(numbers) * (per_device + numbers.head_size), numbers)


def head_bound(mask: jax.Array, params: ConvergenceParams) -> jax.Array:
    r"""Bound on the heads' expected optimality gap, mean over devices, by who took part.

    $h_{n,t+1} = (1-\mu\eta)\,h_{n,t} + \frac{L_s\eta^2}{2}\sigma^2 d_\theta$ for $n \in S_t$,
    $h_{n,t+1} = h_{n,t}$ for the others. It replaces the heads' part of FedFT's Theorem 1, (16),
    where not all devices take part. With $S_t$ uniform among the sets of K devices its mean
    contracts by $1 - \frac KN \mu\eta$ per round and not by $1 - \mu\eta$; the limit of many rounds
    is the same.

    It holds if F = F_A(ΔW) + mean of H_n(θ_n) (the separation of the paper's Lemma 1; in general
    the heads chase a moving ΔW), every H_n is L_s-smooth with constant μ and starts from the same
    gap, and S_t is independent of the gradients' noise. Its sum with `convergence_bound` of the
    adapters alone bounds the gap of F.

    Args:
      mask: the scheduled sets, bool [..., T, N].
      params: the constants, scalars; `initial_gap` of the heads alone, `adapter_size` unused.

    Returns:
      Shape [..., T + 1], index 0 the initial gap.

    Raises:
      ValueError: a concrete number out of range (traced ones are not checked).

    Example:
      >>> import jax.numpy as jnp
      >>> params = ConvergenceParams(
      ...     smoothness=2.0, pl_constant=1.0, learning_rate=0.5, gradient_variance=0.0,
      ...     adapter_size=0, head_size=8, initial_gap=1.0,
      ... )
      >>> print(head_bound(jnp.array([[True, False], [True, False]]), params))
      [1.    0.75  0.625]
    """
    _check_params(params)
    numbers = as_arrays(params)
    is_step = jnp.swapaxes(mask, -1, -2)  # [..., N, T]
    noise = jnp.full(is_step.shape, _noise(numbers) * numbers.head_size)
    return jnp.mean(_gap_path(is_step, noise, numbers), axis=-2)


def round_weights(num_rounds: int, params: ConvergenceParams) -> jax.Array:
    r"""What a round's noise still counts at the end: later rounds weigh more.

    $w_t = (1-\mu\eta)^{T-1-t}$ (FedFT (14)), so that $G_T = (1-\mu\eta)^T G_0 + \sum_t w_t
    \frac{L_s\eta^2}{2}\sigma^2(\frac{d_A}{K_t} + d_\theta)$ where no round is idle.

    Args:
      num_rounds: T, static.
      params: the constants; only μ and η matter.

    Returns:
      Shape [T], increasing to 1.

    Raises:
      ValueError: a concrete number out of range (traced ones are not checked).

    Example:
      >>> params = ConvergenceParams(
      ...     smoothness=2.0, pl_constant=1.0, learning_rate=0.5, gradient_variance=0.125,
      ...     adapter_size=8, head_size=0, initial_gap=1.0,
      ... )
      >>> print(round_weights(3, params))
      [0.25 0.5  1.  ]
    """
    _check_params(params)
    numbers = as_arrays(params)
    decay = 1 - numbers.pl_constant * numbers.learning_rate
    return jnp.power(decay, jnp.arange(num_rounds - 1, -1, -1, dtype=decay.dtype))


# -- the recursion that both bounds follow ---------------------------------------------------------


def _noise(params: ConvergenceParams) -> jax.Array:
    """What one noisy element adds to the gap in a round, L_s η² σ² / 2."""
    return jnp.asarray(params.smoothness * params.learning_rate**2 * params.gradient_variance / 2)


@jax.jit  # called outside jit it is one program, and the next call of that shape finds it
def _gap_path(is_step: jax.Array, noise: jax.Array, params: ConvergenceParams) -> jax.Array:
    """Gap [..., T + 1] under the noise [..., T] of each round; it stays where no step is taken."""
    decay = jnp.where(is_step, 1 - params.pl_constant * params.learning_rate, 1)
    noise = jnp.where(is_step, noise, 0)

    def one_round(gap: jax.Array, xs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        decay, noise = xs
        gap = decay * gap + noise
        return gap, gap

    initial = jnp.full(noise.shape[:-1], params.initial_gap)
    per_round = jnp.moveaxis(decay, -1, 0), jnp.moveaxis(noise, -1, 0)
    _, later = jax.lax.scan(one_round, initial, per_round)
    return jnp.concatenate([initial[..., None], jnp.moveaxis(later, 0, -1)], axis=-1)


# -- drift plus penalty ----------------------------------------------------------------------------


class LyapunovBounds(NamedTuple):
    """What drift-plus-penalty guarantees in expectation."""

    reward_gap: jax.Array  # mean of ρ(K_t) is at most so far below the best policy's
    mean_queue: jax.Array  # s/bit, mean of Q_t is at most this


def drift_constant(delay: jax.Array, delay_budget: ArrayLike) -> jax.Array:
    r"""The drift that the queue's square cannot avoid, from a realised path.

    $D = \frac12 \cdot \frac1T \sum_t (\tau_t - \bar\tau)^2$, the constant of FedFT's Lemma 2 (21).

    Args:
      delay: τ_t in s/bit, shape [..., T].
      delay_budget: τ̄ in s/bit, scalar.

    Returns:
      D in (s/bit)², shape [...]. Theory asks for its expectation: average it over seeds.

    Example:
      >>> import jax.numpy as jnp
      >>> float(drift_constant(jnp.array([1.0, 3.0, 4.0, 0.0]), 2.0))
      1.25
    """
    numbers, budget = as_arrays((delay, delay_budget))
    return jnp.mean((numbers - budget) ** 2, axis=-1) / 2


def lyapunov_bounds(
    weight: ArrayLike, drift: ArrayLike, reward_range: ArrayLike, slack: ArrayLike
) -> LyapunovBounds:
    r"""The trade-off that V sets: a reward within O(1/V) of the best, a queue of O(V).

    $\rho^* - \frac1T\sum_t E\rho(K_t) \le \frac DV, \qquad
    \frac1T\sum_t E Q_t \le \frac{D + V(\rho_{\max} - \rho_\epsilon)}{\epsilon}$
    (Neely 2010, Theorem 4.2, for the queue (18) and problem P1 (22) of FedFT). ρ* is the greatest
    mean reward of any policy with a mean delay of at most τ̄.

    It holds for every T if

    - the channels are i.i.d. over rounds (given the positions), and V is constant (`v_decay=1`);
    - P1 is solved exactly (`rule="exact"`). A rule that loses at most C of P1's value adds C to D;
    - Q_0 = 0. A run that starts at Q_0 adds Q_0²/(2T) to D;
    - D is finite. At Q_t = 0 P1 takes every device whatever its channel, and under Rayleigh fading
      the mean of their delay is infinite, and so is E D. With the D and the mean queue of one path
      the bounds still hold up to the average of Q_t (τ'_t − τ̄), τ' the delay of the policy compared
      with, which has no upward drift.

    Args:
      weight: V = v·τ̄² > 0, in (s/bit)².
      drift: D >= 0 in (s/bit)², the mean of `drift_constant` over seeds.
      reward_range: ρ_max − ρ_ε >= 0, from the mean reward of the policy with slack to the run's own
        or to any that is not below it. ρ(N) − ρ(1) always does.
      slack: ε > 0 in s/bit: some policy that looks at the channels alone has the mean delay τ̄ − ε.

    Returns:
      `LyapunovBounds`, broadcast over scalars and arrays of one shape.

    Raises:
      ValueError: a concrete number out of range (traced ones are not checked).

    Example:
      >>> bounds = lyapunov_bounds(weight=4.0, drift=2.0, reward_range=9.0, slack=0.5)
      >>> float(bounds.reward_gap), float(bounds.mean_queue)
      (0.5, 76.0)
    """
    _check_range("weight", weight, is_zero_allowed=False)
    _check_range("drift", drift)
    _check_range("reward_range", reward_range)
    _check_range("slack", slack, is_zero_allowed=False)
    weight, drift, reward_range, slack = as_arrays((weight, drift, reward_range, slack))
    # Square (18): ½Q_{t+1}² − ½Q_t² <= ½(τ_t − τ̄)² + Q_t(τ_t − τ̄). P1 maximises Vρ − Q_t τ, so for
    # the ρ'_t, τ'_t of any other policy, in every round and on every path,
    #   ½Q_{t+1}² − ½Q_t² + V(ρ'_t − ρ_t) <= ½(τ_t − τ̄)² + Q_t(τ'_t − τ̄).
    # A policy that looks at the channels of round t alone is independent of Q_t, so that the last
    # term has the mean EQ_t·(Eτ' − τ̄). Average over t and drop ½Q_T² >= 0: the best policy
    # (Eτ' <= τ̄, Eρ' = ρ*) gives the first bound, the one with slack (Eτ' = τ̄ − ε, Eρ' = ρ_ε) the
    # second.
    return LyapunovBounds(
        reward_gap=jnp.asarray(drift / weight),
        mean_queue=jnp.asarray((drift + weight * reward_range) / slack),
    )


# -- what numbers are allowed ----------------------------------------------------------------------

_ROUNDING = 1e-6  # 1/L_s may come in float32


def _check_range(name: str, value: ArrayLike, is_zero_allowed: bool = True) -> None:
    if isinstance(value, jax.core.Tracer):
        return
    numbers = np.asarray(value, np.float64)
    is_allowed = np.isfinite(numbers) & ((numbers >= 0) if is_zero_allowed else (numbers > 0))
    if not is_allowed.all():
        wrong = numbers[~is_allowed][0]
        raise ValueError(
            f"{name}={wrong:g}: it must be finite and {'>=' if is_zero_allowed else '>'} 0"
        )


def _check_params(params: ConvergenceParams) -> None:
    for name, value in params._asdict().items():
        _check_range(name, value)
    decisive = params[:3]
    if any(isinstance(value, jax.core.Tracer) for value in decisive):
        return
    smoothness, pl_constant, learning_rate = (np.asarray(x, np.float64) for x in decisive)
    if learning_rate * smoothness > 1 + _ROUNDING:
        raise ValueError(
            f"learning_rate={learning_rate:g} is too large: the bound holds up to "
            f"1/smoothness = {1 / smoothness:g}"
        )
    if pl_constant > smoothness * (1 + _ROUNDING):
        raise ValueError(
            f"pl_constant={pl_constant:g} is impossible: no loss has more than its "
            f"smoothness={smoothness:g}"
        )
    if pl_constant * learning_rate >= 1:
        raise ValueError(
            f"pl_constant·learning_rate = {pl_constant * learning_rate:g} leaves nothing of the "
            f"initial gap: choose learning_rate < {1 / pl_constant:g}"
        )
