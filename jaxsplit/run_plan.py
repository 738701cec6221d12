"""What the seeds of a learning run have in common, and the schedule that they are laid over."""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplit.clock import Clock, Exchange, Times
from jaxsplit.costs import Order, Payload, wide_value
from jaxsplit.federated import LearningParams, RoundInfo, Scheme, Work
from jaxsplit.network import Network, NetworkInfo, NetworkParams, RunKeys, run_network


class NonFiniteError(RuntimeError):
    """A loss or a delay became infinite or NaN."""


class Schedule(NamedTuple):
    """What the radio of a run does, before anything is learned; on the host."""

    info: NetworkInfo  # fields [T, ...]
    last_queue: np.ndarray  # [] s/bit, Q_T


@dataclass(frozen=True)
class Plan:
    """The choices and the numbers of a run."""

    network: Network
    network_params: NetworkParams
    scheme: Scheme
    learning_params: LearningParams  # of each seed, leading axis [S]
    num_rounds: int
    warmup_rounds: int
    evaluate_every: int
    clock: Clock
    clock_params: Any

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

    def of_seeds(self, group: slice) -> "Plan":
        """The plan of some of the seeds."""
        return dataclasses.replace(self, learning_params=rows(self.learning_params, group))

    def draw_schedule(self, keys: RunKeys) -> Schedule:
        """The schedule of a seed, on the host."""
        drawn = _draw_schedule(
            keys.network, self.network, self.network_params, self.num_rounds, self.warmup_rounds
        )
        return Schedule(*jax.tree.map(np.asarray, drawn))

    def charge(self, keys: RunKeys, schedule: Schedule, sent: Payload, work: Work) -> Times:
        """The time that a seed's rounds take, on the host.

        Args:
          keys: of the seed.
          schedule: of the seed.
          sent: int64 [T, N] each.
          work: of a local step.
        """
        dtype = jnp.result_type(float)
        exchange = Exchange(
            # Far from the folds and splits that the network itself draws from.
            key=jax.random.fold_in(keys.network, 2**31),
            info=schedule.info,
            sent=jax.tree.map(lambda bits: jnp.asarray(bits, dtype), sent),
            work=Work(*(jnp.asarray(value, dtype) for value in work)),
            local_steps=jnp.asarray(self.scheme.local_steps, dtype),
            total_hz=self.network_params.bandwidth_hz,
        )
        times = _charge(exchange, self.clock_params, self.clock.charge, self.scheme.order)
        return jax.tree.map(np.asarray, times)

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


def rows(tree: Any, which: int | slice) -> Any:
    """Some of the seeds of a pytree with a leading axis [S], or one without the axis."""
    return jax.tree.map(lambda leaf: leaf[which], tree)


@functools.partial(jax.jit, static_argnames=("network", "num_rounds", "warmup_rounds"))
def _draw_schedule(
    key: jax.Array, network: Network, params: NetworkParams, num_rounds: int, warmup_rounds: int
) -> tuple[NetworkInfo, jax.Array]:
    state, info = run_network(key, network, params, num_rounds, warmup_rounds)
    return info, state.queue


@functools.partial(jax.jit, static_argnames=("charge", "order"))
def _charge(exchange: Exchange, params: Any, charge: Any, order: Order) -> Times:
    return cast(Times, charge(exchange, params, order))


def sent_bits(each: Payload, rounds: RoundInfo, masks: np.ndarray) -> Payload:
    """What a seed's devices really exchanged, exact.

    Args:
      each: of one device and round, beside what the codecs counted.
      rounds: what training showed, fields [T, ...].
      masks: scheduled sets, bool [T, N].

    Returns:
      int64 [T, N] each, 0 for devices that rest.
    """
    sent = Payload(*(np.where(masks, np.int64(bits), 0) for bits in each))
    coded = rounds.coded_bits
    return sent._replace(
        activation_bits=sent.activation_bits + wide_value(coded.up),
        gradient_bits=sent.gradient_bits + wide_value(coded.down),
        upload_bits=sent.upload_bits + wide_value(rounds.upload_bits),
    )


def check_delays(seed: int, delay_s: np.ndarray) -> None:
    """Make sure that a radio can do what was scheduled.

    Args:
      seed: for the message.
      delay_s: of the seed's rounds, [T].

    Raises:
      NonFiniteError: a delay is infinite or NaN.
    """
    bad = np.flatnonzero(~np.isfinite(delay_s))
    if bad.size:
        raise NonFiniteError(
            f"the delay is {delay_s[bad[0]]} in round {bad[0]} of seed {seed}: some number of "
            "the network is beyond what a radio, or float32, can hold, or the bandwidth caps do "
            "not suffice"
        )
