"""What the seeds of a learning run have in common, and the schedule that they are laid over."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplit.costs import Payload
from jaxsplit.federated import LearningParams, Scheme
from jaxsplit.network import Network, NetworkInfo, NetworkParams, RunKeys, run_network
from jaxsplit.wireless import exchange_delay, transmission_delay


class NonFiniteError(RuntimeError):
    """A loss or a delay became infinite or NaN."""


class Schedule(NamedTuple):
    """What the radio of a run does, before anything is learned; on the host."""

    info: NetworkInfo  # fields [T, ...]
    last_queue: np.ndarray  # [] s/bit, Q_T
    uplink_s: np.ndarray  # [T, N] s, 0 for devices that are not scheduled
    downlink_s: np.ndarray  # [T, N] s
    delay_s: np.ndarray  # [T] s, of the slowest device


@dataclass(frozen=True)
class Plan:
    """The choices and the numbers of a run."""

    network: Network
    network_params: NetworkParams
    scheme: Scheme
    learning_params: LearningParams
    num_rounds: int
    warmup_rounds: int
    evaluate_every: int

    @property
    def num_chunks(self) -> int:
        """Chunks of rounds, an evaluation at the end of each; the first has no rounds."""
        return 1 + -(-self.num_rounds // self.evaluate_every)

    def rounds_after(self, chunk: int) -> int:
        """Rounds done after a chunk; chunk 0 evaluates the initial state."""
        return min(chunk * self.evaluate_every, self.num_rounds)

    def rounds_of(self, chunk: int) -> slice:
        """The rounds of a chunk."""
        return slice(self.rounds_after(max(chunk - 1, 0)), self.rounds_after(chunk))

    def draw_schedule(self, keys: RunKeys, sent: Payload) -> Schedule:
        """The schedule of a seed, on the host, and the time that its payload takes."""
        drawn = _draw_schedule(
            keys.network,
            self.network,
            self.network_params,
            *(jnp.asarray(bits, jnp.result_type(float)) for bits in sent),
            self.num_rounds,
            self.warmup_rounds,
        )
        return Schedule(*jax.tree.map(np.asarray, drawn))

    def masks(self, schedules: Sequence[Schedule]) -> np.ndarray:
        """Scheduled sets by chunks, bool [S, chunks, R, N]; rows without devices pad them."""
        rounds = np.zeros(
            (
                len(schedules),
                self.num_chunks * self.evaluate_every,
                self.network.num_devices,
            ),
            bool,
        )
        first = self.evaluate_every
        rounds[:, first : first + self.num_rounds] = [s.info.mask for s in schedules]
        return rounds.reshape(len(schedules), self.num_chunks, first, -1)

    def samples(self, masks: np.ndarray, num_test_samples: int) -> int:
        """Samples that go through the backbone in the chunks of `masks`, for one seed's test set.

        One that is trained on counts twice, for its way forward and its way back, and so do those
        that fill up a group of devices; one that is evaluated counts once.
        """
        group = min(self.scheme.devices_per_step, masks.shape[-1])
        devices = -(-masks.sum(axis=-1) // group) * group
        trained = 2 * int(devices.sum()) * self.scheme.batch_size * self.scheme.local_steps
        return trained + masks.shape[0] * masks.shape[1] * num_test_samples


@functools.partial(jax.jit, static_argnames=("network", "num_rounds", "warmup_rounds"))
def _draw_schedule(
    key: jax.Array,
    network: Network,
    params: NetworkParams,
    up_bits: jax.Array,
    down_bits: jax.Array,
    num_rounds: int,
    warmup_rounds: int,
) -> tuple[Any, ...]:
    state, info = run_network(key, network, params, num_rounds, warmup_rounds)
    uplink_s, downlink_s = (
        jnp.where(info.mask, transmission_delay(bits, info.bandwidth_hz, snr_hz), 0)
        for bits, snr_hz in ((up_bits, info.snr_hz), (down_bits, info.server_snr_hz))
    )
    delay_s = jnp.max(exchange_delay(uplink_s, downlink_s, network.duplex), axis=-1)
    return info, state.queue, uplink_s, downlink_s, delay_s


def check_delays(seed: int, schedule: Schedule) -> None:
    """Make sure that a radio can do what was scheduled.

    Args:
      seed: for the message.
      schedule: of the seed.

    Raises:
      NonFiniteError: a delay is infinite or NaN.
    """
    bad = np.flatnonzero(~np.isfinite(schedule.delay_s))
    if bad.size:
        raise NonFiniteError(
            f"the delay is {schedule.delay_s[bad[0]]} in round {bad[0]} of seed {seed}: some "
            "number of the network is beyond what a radio, or float32, can hold"
        )
