"""The options that learning runs share on the command line: rounds, rates, adapters, radio."""

import functools
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import optax
from jax.typing import ArrayLike

from jaxsplit.catalogue import SCHEDULERS
from jaxsplit.clock import Clock, transmission_clock
from jaxsplit.federated import LearningParams
from jaxsplit.network import Network, NetworkParams
from jaxsplit.options import number, some_of, whole
from jaxsplit.scheduling import LyapunovParams
from jaxsplit.tracking import TRACKERS
from jaxsplit.wireless import RayleighParams, rayleigh

POLICIES = {
    name: SCHEDULERS[name]
    for name in ("all_in", "lyapunov_bound", "lyapunov_count", "greedy", "aaba")
}


@dataclass(frozen=True, kw_only=True)
class LearningOptions:
    """What a run of several policies over a Rayleigh cell needs to know."""

    policies: Annotated[tuple[str, ...], some_of(POLICIES)] = tuple(POLICIES)
    """Scheduling policies to compare."""
    rounds: Annotated[int, whole(1)] = 200
    """Communication rounds T."""
    devices: Annotated[int, whole(1)] = 20
    """Devices N."""
    seeds: Annotated[int, whole(1)] = 5
    """Independent runs of each policy, with common seeds 0, 1, ..."""
    warmup_rounds: Annotated[int, whole(0)] = 300
    """Network-only rounds that fill the virtual queue before round 0."""
    evaluate_every: Annotated[int, whole(1)] = 10
    """Rounds between two evaluations."""
    batch_size: Annotated[int, whole(1)] = 16
    """Samples per device and round."""
    adapter_learning_rate: Annotated[float, number(at_least=0)] = 0.3
    """Learning rate of the adapters (SGD, gradient norm clipped at 1); 0 trains heads alone."""
    head_learning_rate: Annotated[float, number(above=0)] = 0.01
    """Learning rate of the personal heads (likewise)."""
    learning_rate_schedule: Literal["constant", "linear", "cosine", "exponential"] = "constant"
    """How both learning rates fall: not, to 0 along a line or a cosine, or by 0.998 per round."""
    lora_rank: Annotated[int, whole(1)] = 4
    """Rank r of the adapters."""
    lora_alpha: Annotated[float, number(above=0)] = 8.0
    """Scale of the adapters: the update is alpha/r * A * B."""
    delay_budget_ns_per_bit: Annotated[float, number(above=0)] = 25.0
    """Long-term mean of the transmission delay per bit, ns/bit."""
    v: Annotated[float, number(above=0)] = 1.0
    """Weight of the reward against the queue, V = v * budget^2."""
    bandwidth_hz: Annotated[float, number(above=0)] = 20e6
    """Total bandwidth B, Hz."""
    power_dbm: Annotated[float, number()] = 10.0
    """Transmit power P of devices and server, dBm."""
    noise_dbm_per_hz: Annotated[float, number()] = -174.0
    """Noise power density N0, dBm/Hz."""
    radius_m: Annotated[float, number(above=0)] = 100.0
    """Radius of the disc of devices around the server, m."""
    seeds_at_once: Annotated[int | None, whole(1).or_none()] = None
    """Seeds in one program; by default 1 on a processor, what the memory holds on accelerators."""
    checkpoint_every_s: Annotated[float, number(at_least=0)] = 30.0
    """Seconds between two checkpoints, at least; an interrupted run goes on from the last one."""
    track: Annotated[tuple[str, ...], some_of(TRACKERS).or_empty()] = ()
    """Where metrics go as well while the run goes on: tensorboard, wandb (extras of that name)."""

    @property
    def total_rounds(self) -> int:
        """Learning rounds of all policies and seeds."""
        return len(self.policies) * self.seeds * self.rounds

    def network(self, policy: str) -> Network:
        """The network's choices under a policy."""
        return Network(self.devices, rayleigh(), POLICIES[policy]())

    def network_params(self, policy: str) -> NetworkParams:
        """The network's numbers under a policy."""
        scheduler = POLICIES[policy]().params
        if isinstance(scheduler, LyapunovParams):
            scheduler = scheduler._replace(v=self.v)
        return NetworkParams(
            channel=RayleighParams(radius_m=self.radius_m),
            scheduler=scheduler,
            bandwidth_hz=self.bandwidth_hz,
            power_dbm=self.power_dbm,
            server_power_dbm=self.power_dbm,
            noise_dbm_per_hz=self.noise_dbm_per_hz,
            delay_budget=self.delay_budget_ns_per_bit * 1e-9,
        )

    def round_clock(self) -> tuple[Clock, Any]:
        """How long a round takes, and the numbers of that."""
        return transmission_clock(), ()

    def schedule(self) -> optax.Schedule | None:
        """Factor of both learning rates over the rounds, None for 1."""
        return _schedule(self.learning_rate_schedule, self.rounds)

    def learning_params(self) -> LearningParams:
        """The learning rates."""
        return LearningParams(self.adapter_learning_rate, self.head_learning_rate)


@functools.lru_cache  # a schedule made anew would compile the round anew
def _schedule(name: str, rounds: int) -> optax.Schedule | None:
    if name == "linear":
        return optax.linear_schedule(1.0, 0.0, rounds)
    if name == "exponential":
        return optax.exponential_decay(1.0, transition_steps=1, decay_rate=0.998)
    return optax.cosine_decay_schedule(1.0, rounds) if name == "cosine" else None


def clipped_sgd(learning_rate: ArrayLike) -> optax.GradientTransformation:
    """SGD whose gradient has a norm of at most 1.

    A round with a single device has a noisy gradient. Without the clip it now and then throws the
    adapters far back at the rates used here, which hides the differences between policies.

    Args:
      learning_rate: η.

    Returns:
      An optax optimizer.
    """
    return optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(learning_rate))
