"""What a sweep keeps of each scenario: sums over rounds, flat in their number."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxsplit.network import NetworkInfo, NetworkParams, NetworkState
from jaxsplit.scheduling import jain_index, slowest_delay
from jaxsplit.wireless import shannon_rate


class Sums(NamedTuple):
    """A running sum whose rounding does not grow with the number of terms (Kahan 1965)."""

    value: jax.Array
    excess: jax.Array  # what `value` has too much

    def add(self, term: jax.Array) -> "Sums":
        """The sum with one more term, elementwise."""
        term = term - self.excess
        value = self.value + term
        # An infinite term makes the sum infinite; inf − inf would make it NaN.
        excess = jnp.where(jnp.isfinite(value), (value - self.value) - term, 0)
        return Sums(value, excess)


class Rounds(NamedTuple):
    """What is kept of every round, where that is asked for."""

    num_scheduled: jax.Array  # [T] int32, K_t
    delay: jax.Array  # [T] s/bit, τ_t
    queue: jax.Array  # [T] s/bit, Q_t


class Totals(NamedTuple):
    """What the rounds of a scenario add up to."""

    sums: dict[str, Sums]  # of `_terms`, each [] or [N]
    max_delay: jax.Array  # [] s/bit
    max_queue: jax.Array  # [] s/bit
    initial_queue: jax.Array  # [] s/bit, Q_0, after the warm-up
    rounds: Rounds | None


# name: (unit, meaning); these are the variables of a sweep's result.
PER_SCENARIO = {
    "mean_scheduled": ("devices", "mean over rounds of the scheduled devices K_t"),
    "mean_inverse_scheduled": ("", "mean of 1/K_t over rounds that have devices"),
    "mean_delay": ("s/bit", "mean over rounds of the transmission delay per bit τ_t"),
    "max_delay": ("s/bit", "greatest transmission delay per bit"),
    "mean_squared_excess": ("s²/bit²", "mean over rounds of (τ_t − τ̄)²"),
    "part_over_budget": ("", "part of the rounds with τ_t > τ̄"),
    "mean_downlink_delay": ("s/bit", "mean over rounds of the downlink's delay per bit"),
    "mean_least_delay": ("s/bit", "mean delay if the best device alone had the band"),
    "is_feasible": ("", "the budget is above the mean delay of the best device alone"),
    "initial_queue": ("s/bit", "virtual queue Q_0 before the first round"),
    "mean_queue": ("s/bit", "mean over rounds of the virtual queue Q_t"),
    "max_queue": ("s/bit", "greatest virtual queue"),
    "final_queue": ("s/bit", "virtual queue Q_T after the last round"),
    "jain_participation": ("", "Jain's index of the rounds that each device took part in"),
    "part_participating": ("", "part of the devices that ever took part"),
    "transmission_energy_per_bit": ("J/bit", "transmission energy of all devices, mean of rounds"),
    "computation_energy_per_bit": ("J/bit", "computation energy of all devices, mean of rounds"),
    "part_ambiguous": ("", "part of the rounds whose schedule rounding could not tell apart"),
    "part_empty": ("", "part of the rounds without devices"),
}
PER_DEVICE = {
    "participation": ("rounds", "rounds that the device took part in"),
    "device_transmission_energy_per_bit": ("J/bit", "transmission energy, mean of rounds"),
    "device_computation_energy_per_bit": ("J/bit", "computation energy, mean of rounds"),
}
PER_ROUND = {
    "num_scheduled": ("devices", "scheduled devices K_t"),
    "delay": ("s/bit", "transmission delay per bit τ_t of the slowest device"),
    "queue": ("s/bit", "virtual queue Q_t before the round"),
}


def _terms(info: NetworkInfo, params: NetworkParams) -> dict[str, jax.Array]:
    """What is summed over rounds."""
    dtype = info.delay.dtype
    count = jnp.sum(info.mask).astype(dtype)
    least_delay = 1 / shannon_rate(jnp.asarray(params.bandwidth_hz), jnp.max(info.snr_hz))
    return {
        "scheduled": count,
        "inverse_scheduled": jnp.where(count > 0, 1 / count, 0),
        "delay": info.delay,
        "squared_excess": (info.delay - params.delay_budget) ** 2,
        "over_budget": (info.delay > params.delay_budget).astype(dtype),
        "downlink_delay": slowest_delay(info.bandwidth_hz, info.server_snr_hz, info.mask),
        "least_delay": least_delay,
        "queue": info.queue,
        "ambiguous": info.is_ambiguous.astype(dtype),
        "empty": (count == 0).astype(dtype),
        "participation": info.mask.astype(dtype),
        "transmission_energy": info.transmission_energy_per_bit,
        "computation_energy": info.computation_energy_per_bit,
    }


def no_rounds(info: NetworkInfo, params: NetworkParams, num_recorded: int) -> Totals:
    """Totals before the first round.

    Args:
      info: of any round, or its shapes and dtypes.
      params: the numbers, as arrays.
      num_recorded: rounds of which each is kept, 0 for none; static.

    Returns:
      Zeros.
    """
    terms = jax.eval_shape(_terms, info, params)
    zeros = {name: jnp.zeros(term.shape, term.dtype) for name, term in terms.items()}
    nothing = jnp.zeros(info.delay.shape, info.delay.dtype)
    record = jnp.zeros(num_recorded, info.delay.dtype)
    return Totals(
        sums={name: Sums(zero, zero) for name, zero in zeros.items()},
        max_delay=nothing,
        max_queue=nothing,
        initial_queue=nothing,
        rounds=Rounds(record.astype(jnp.int32), record, record) if num_recorded else None,
    )


def add_round(totals: Totals, index: jax.Array, info: NetworkInfo, params: NetworkParams) -> Totals:
    """Totals with one more round; a round of the warm-up, `index` < 0, is left out.

    Args:
      totals: so far.
      index: t, int32.
      info: the round.
      params: the numbers.

    Returns:
      The new totals.
    """
    rounds = totals.rounds
    if rounds is not None:
        seen = Rounds(jnp.sum(info.mask, dtype=jnp.int32), info.delay, info.queue)
        # A warm-up round writes to row 0, which round 0 then overwrites.
        row = jnp.maximum(index, 0)
        rounds = jax.tree.map(lambda record, value: record.at[row].set(value), rounds, seen)
    counted = Totals(
        sums={name: totals.sums[name].add(term) for name, term in _terms(info, params).items()},
        max_delay=jnp.maximum(totals.max_delay, info.delay),
        max_queue=jnp.maximum(totals.max_queue, info.queue),
        initial_queue=jnp.where(index == 0, info.queue, totals.initial_queue),
        rounds=None,
    )
    kept = jax.tree.map(
        lambda new, old: jnp.where(index < 0, old, new), counted, totals._replace(rounds=None)
    )
    return kept._replace(rounds=rounds)


def summarise(
    totals: Totals, state: NetworkState, params: NetworkParams, num_rounds: int
) -> dict[str, jax.Array]:
    """The variables of a sweep's result, for one scenario.

    Args:
      totals: of all its rounds.
      state: after the last round.
      params: the numbers.
      num_rounds: T.

    Returns:
      `PER_SCENARIO`, each [], `PER_DEVICE`, each [N], and `PER_ROUND`, each [T] if kept.
    """
    total = {name: pair.value for name, pair in totals.sums.items()}
    mean = {name: value / num_rounds for name, value in total.items()}
    count = total["participation"]
    summary = {
        "mean_scheduled": mean["scheduled"],
        "mean_inverse_scheduled": total["inverse_scheduled"] / (num_rounds - total["empty"]),
        "mean_delay": mean["delay"],
        "max_delay": totals.max_delay,
        "mean_squared_excess": mean["squared_excess"],
        "part_over_budget": mean["over_budget"],
        "mean_downlink_delay": mean["downlink_delay"],
        "mean_least_delay": mean["least_delay"],
        "is_feasible": mean["least_delay"] < params.delay_budget,
        "initial_queue": totals.initial_queue,
        "mean_queue": mean["queue"],
        "max_queue": totals.max_queue,
        "final_queue": state.queue,
        "jain_participation": jain_index(count),
        "part_participating": jnp.mean((count > 0).astype(count.dtype)),
        "transmission_energy_per_bit": jnp.sum(mean["transmission_energy"]),
        "computation_energy_per_bit": jnp.sum(mean["computation_energy"]),
        "part_ambiguous": mean["ambiguous"],
        "part_empty": mean["empty"],
        "participation": count.astype(jnp.int32),
        "device_transmission_energy_per_bit": mean["transmission_energy"],
        "device_computation_energy_per_bit": mean["computation_energy"],
    }
    return summary | (totals.rounds._asdict() if totals.rounds else {})
