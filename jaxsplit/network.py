"""The wireless network as a pure function of a key: init, step, run.

A learning run (`jaxsplit.federated`) is laid over the schedule that comes out of here:
scheduling does not depend on learning, so it is drawn first.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsplit.scheduling import Observation, Scheduler, virtual_queue
from jaxsplit.wireless import (
    ChannelModel,
    Duplex,
    ProcessorParams,
    computation_energy,
    snr_density,
    transmission_delay,
    transmission_energy,
)
from jaxsplit.wireless.link import check_duplex


@dataclass(frozen=True)
class Network:
    """The choices of a network: what decides shapes and code paths."""

    num_devices: int  # N
    channel: ChannelModel
    scheduler: Scheduler
    duplex: Duplex = "half"  # of the clock; schedulers look at the uplink's delay per bit

    def __post_init__(self) -> None:
        """Reject what cannot be."""
        check_duplex(self.duplex)
        if self.num_devices < 1:
            raise ValueError(f"num_devices={self.num_devices}: a network needs at least 1 device")

    def default_params(self) -> "NetworkParams":
        """The default numbers, those of the channel and the scheduler included."""
        return NetworkParams(channel=self.channel.params, scheduler=self.scheduler.params)


class NetworkParams(NamedTuple):
    """The numbers of a network: sweep over them with one trace.

    The defaults are ours where FedFT's text lost its own.
    """

    channel: Any  # of the channel model
    scheduler: Any  # of the scheduler
    bandwidth_hz: ArrayLike = 20e6  # B
    power_dbm: ArrayLike = 10.0  # P
    noise_dbm_per_hz: ArrayLike = -174.0  # N0
    delay_budget: ArrayLike = 25e-9  # τ̄, s/bit
    processor: Any = ProcessorParams()  # of every device
    server_power_dbm: ArrayLike = 10.0  # of the downlink to a device, on that device's band


class NetworkState(NamedTuple):
    """What a round hands to the next."""

    channel: Any
    scheduler: Any
    queue: jax.Array  # [] s/bit, virtual queue Q_t
    round_index: jax.Array  # [] int32, t


class NetworkInfo(NamedTuple):
    """What a round shows; `run_network` stacks it to [T, ...]."""

    snr_hz: jax.Array  # [N] Hz, of the uplink
    server_snr_hz: jax.Array  # [N] Hz, of the downlink, over the same channel
    mask: jax.Array  # [N] bool, scheduled devices
    bandwidth_hz: jax.Array  # [N] Hz
    delay: jax.Array  # [] s/bit, τ_t
    queue: jax.Array  # [] s/bit, Q_t, what the scheduler saw
    value: jax.Array  # [] the scheduler's objective, NaN where it has none
    is_ambiguous: jax.Array  # [] bool, rounding could not tell the schedule from another
    transmission_energy_per_bit: jax.Array  # [N] J/bit, of the scheduled devices, 0 elsewhere
    computation_energy_per_bit: jax.Array  # [N] J/bit, likewise


class RunKeys(NamedTuple):
    """What the parts of a run draw from, so that none depends on another."""

    network: jax.Array
    init: jax.Array  # of the learning's initial weights
    rounds: jax.Array  # of the learning's mini-batches


def run_keys(seed: ArrayLike) -> RunKeys:
    """The keys of a seed: `run` and `sweep` draw the same network from the same seed.

    Args:
      seed: an integer below 2³².

    Returns:
      One key per part.

    Example:
      >>> run_keys(0).network.shape
      ()
    """
    return RunKeys(*jax.random.split(jax.random.key(seed), 3))


def as_arrays(params: Any) -> Any:
    """Numbers of a params pytree as strongly typed arrays, so that their values never retrace.

    Example:
      >>> as_arrays({"v": 1.0})
      {'v': Array(1., dtype=float32)}
    """
    dtype = jnp.result_type(float)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)


def init_network(key: jax.Array, network: Network, params: NetworkParams) -> NetworkState:
    """Place the devices and empty the queue.

    Args:
      key: PRNG key of the run's geometry.
      network: the choices.
      params: the numbers.

    Returns:
      The state before round 0, with Q_0 = 0.
    """
    params = as_arrays(params)
    return NetworkState(
        channel=network.channel.init(key, network.num_devices, params.channel),
        scheduler=network.scheduler.init(network.num_devices, params.scheduler),
        queue=jnp.zeros_like(params.delay_budget),
        round_index=jnp.int32(0),
    )


def step_network(
    key: jax.Array, state: NetworkState, network: Network, params: NetworkParams
) -> tuple[NetworkState, NetworkInfo]:
    """One round of the network: fade, schedule, update the queue.

    Args:
      key: PRNG key of this round.
      state: from `init_network` or the round before.
      network: the choices.
      params: the numbers.

    Returns:
      `(state, info)`.
    """
    params = as_arrays(params)
    key_channel, key_scheduler = jax.random.split(key)
    channel, gain = network.channel.sample(key_channel, state.channel, params.channel)
    snr_hz = snr_density(gain, params.power_dbm, params.noise_dbm_per_hz)
    seen = Observation(
        snr_hz=snr_hz,
        total_hz=jnp.asarray(params.bandwidth_hz),
        queue=state.queue,
        delay_budget=jnp.asarray(params.delay_budget),
        round_index=state.round_index,
    )
    scheduler, schedule = network.scheduler.step(
        key_scheduler, state.scheduler, seen, params.scheduler
    )
    queue = virtual_queue(state.queue, schedule.delay, seen.delay_budget)
    air_time = transmission_delay(1, schedule.bandwidth, snr_hz)  # s/bit
    processor = params.processor
    computation = computation_energy(
        processor.capacitance, processor.cycles_per_bit, processor.frequency_hz
    )
    info = NetworkInfo(
        snr_hz=snr_hz,
        server_snr_hz=snr_density(gain, params.server_power_dbm, params.noise_dbm_per_hz),
        mask=schedule.mask,
        bandwidth_hz=schedule.bandwidth,
        delay=schedule.delay,
        queue=state.queue,
        value=schedule.value,
        is_ambiguous=jnp.asarray(schedule.is_ambiguous),
        transmission_energy_per_bit=jnp.where(
            schedule.mask, transmission_energy(params.power_dbm, air_time), 0
        ),
        computation_energy_per_bit=jnp.where(schedule.mask, computation, 0),
    )
    return NetworkState(channel, scheduler, queue, state.round_index + 1), info


def start_network(
    key: jax.Array, network: Network, params: NetworkParams
) -> tuple[NetworkState, jax.Array]:
    """The state before the first round, and the key that all rounds draw from.

    Args:
      key: PRNG key of the run.
      network: the choices.
      params: the numbers.

    Returns:
      `(state, key_rounds)`, for `advance_network`.
    """
    key_geometry, key_rounds = jax.random.split(key)
    return init_network(key_geometry, network, params), key_rounds


def advance_network(
    key_rounds: jax.Array,
    state: NetworkState,
    index: jax.Array,
    network: Network,
    params: NetworkParams,
) -> tuple[NetworkState, NetworkInfo]:
    """Round `index` of a run; rounds below 0 are the warm-up, which is all round 0 to schedulers.

    Args:
      key_rounds: from `start_network`.
      state: from `start_network` or the round before.
      index: t, int32.
      network: the choices.
      params: the numbers.

    Returns:
      `(state, info)`.
    """
    state = state._replace(round_index=jnp.maximum(index, 0))
    return step_network(jax.random.fold_in(key_rounds, index), state, network, params)


def run_network(
    key: jax.Array,
    network: Network,
    params: NetworkParams,
    num_rounds: int,
    warmup_rounds: int = 0,
) -> tuple[NetworkState, NetworkInfo]:
    """Simulate a network for many rounds, without learning.

    Pure in `key` and `params`: jit it with `network` and the round counts static, vmap it over
    keys or parameters. The channels depend on the key alone, so that schedulers compared under
    one key see the same channels.

    Args:
      key: PRNG key of the run.
      network: the choices, static.
      params: the numbers.
      num_rounds: T, static.
      warmup_rounds: rounds before round 0 that only fill the queue, static. 0 starts at Q_0 = 0,
        from where short runs exceed the delay budget.

    Returns:
      `(final state, info)`, each field of `info` with a leading round axis [T].

    Example:
      >>> import jax
      >>> from jaxsplit.scheduling import lyapunov
      >>> from jaxsplit.wireless import rayleigh
      >>> network = Network(20, rayleigh(), lyapunov(objective="bound"))
      >>> _, info = run_network(jax.random.key(0), network, network.default_params(), 50)
      >>> info.mask.shape
      (50, 20)
    """
    state, key_rounds = start_network(key, network, params)

    def body(state: NetworkState, index: jax.Array) -> tuple[NetworkState, NetworkInfo]:
        return advance_network(key_rounds, state, index, network, params)

    rounds = jnp.arange(-warmup_rounds, num_rounds, dtype=jnp.int32)
    state, info = jax.lax.scan(body, state, rounds)
    return state, jax.tree.map(lambda leaf: leaf[warmup_rounds:], info)
