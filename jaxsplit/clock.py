"""How long a round takes, given what was scheduled and what was really sent: the choices."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsplit.costs import (
    Order,
    Payload,
    Phases,
    Processor,
    RadioLink,
    RoundLoad,
    min_max_terms,
    round_delay,
    round_phases,
)
from jaxsplit.federated import Work
from jaxsplit.network import NetworkInfo
from jaxsplit.scheduling import equal_bandwidth, min_max_bandwidth, random_bandwidth
from jaxsplit.wireless import Duplex, exchange_delay, transmission_delay

#: How the phases' clock shares the band: by SFT's min–max, exactly or by SQP, equally, at random,
#: or as the scheduler did.
Allocation = Literal["min_max", "sqp", "equal", "random", "scheduled"]


class Exchange(NamedTuple):
    """What a clock charges: one run of T rounds and N devices."""

    key: jax.Array  # for an allocation at random
    info: NetworkInfo  # fields [T, ...]
    sent: Payload  # fields [T, N], 0 for devices that rest
    work: Work
    local_steps: ArrayLike  # K
    total_hz: ArrayLike  # B


class Times(NamedTuple):
    """What a clock shows."""

    uplink_s: jax.Array  # [T, N] s, 0 for devices that rest
    downlink_s: jax.Array  # [T, N] s
    delay_s: jax.Array  # [T] s, of a round
    phases: Phases | None  # fields [T, N], where the clock knows phases


class Clock(NamedTuple):
    """A clock, as a pure function; equal choices are the same object.

    Attributes:
      charge: `(exchange, params, order) -> Times`, order being the scheme's.
      params: the default parameters, a pytree of numbers.
    """

    charge: Callable[[Exchange, Any, Order], Times]
    params: Any = ()


@functools.cache
def transmission_clock(duplex: Duplex = "half") -> Clock:
    """FedFT's clock: transmission alone, on the scheduler's bandwidths (FedFT (6)–(8)).

    Args:
      duplex: whether a device sends and receives in turn or at once.

    Returns:
      A clock without parameters.

    Raises:
      ValueError: unknown `duplex`.

    Example:
      >>> transmission_clock().params
      ()
    """

    def charge(exchange: Exchange, params: Any, order: Order) -> Times:
        del params
        info, sent = exchange.info, exchange.sent
        uplink_s, downlink_s = (
            jnp.where(info.mask, transmission_delay(bits, info.bandwidth_hz, snr_hz), 0)
            for bits, snr_hz in (
                (sent.up_bits, info.snr_hz),
                (sent.down_bits, info.server_snr_hz),
            )
        )
        of_devices = exchange_delay(uplink_s, downlink_s, duplex)
        together = jnp.max if order == "parallel" else jnp.sum
        return Times(uplink_s, downlink_s, together(of_devices, axis=-1), None)

    exchange_delay(jnp.zeros(()), jnp.zeros(()), duplex)  # checks it
    return Clock(charge)


class PhaseParams(NamedTuple):
    """Numbers of the phases' clock (SFT Table II)."""

    devices: Any = Processor(clock_hz=1e9, cores=256, flop_per_cycle=4)  # numbers or [N]
    server: Any = Processor(clock_hz=3e9, cores=2048, flop_per_cycle=4)
    cap_hz: ArrayLike = jnp.inf  # b_n^max, Hz, a number or [N]


@functools.cache
def phase_clock(allocation: Allocation = "min_max") -> Clock:
    r"""SFT's clock: computation on both sides, and a link of fixed spectral efficiency.

    The phases are those of `jaxsplit.costs.round_phases` (SFT (11)–(19)), with the bits that the
    round really sent. The SNR of a device is that over the whole band, $s_n / B$, so that its
    rate is $b_n \log_2(1 + s_n / B)$. Each round the band is shared anew among the scheduled
    devices (SFT Algorithm 3). Devices in turn have all of it.

    Args:
      allocation: how the band is shared.

    Returns:
      A clock with `PhaseParams`. A round whose caps do not suffice takes infinitely long.

    Raises:
      ValueError: unknown `allocation`.

    Example:
      >>> float(phase_clock("equal").params.server.clock_hz)
      3000000000.0
    """
    if allocation not in get_args(Allocation):
        raise ValueError(f"allocation={allocation!r}: choose one of {get_args(Allocation)}")

    def charge(exchange: Exchange, params: PhaseParams, order: Order) -> Times:
        rounds = jnp.arange(exchange.info.mask.shape[0])

        def of_round(index: jax.Array, info: NetworkInfo, sent: Payload) -> Times:
            key = jax.random.fold_in(exchange.key, index)
            return _round_times(key, index, info, sent, exchange, params, order, allocation)

        return jax.vmap(of_round)(rounds, exchange.info, exchange.sent)

    return Clock(charge, PhaseParams())


def _round_times(
    key: jax.Array,
    index: jax.Array,
    info: NetworkInfo,
    sent: Payload,
    exchange: Exchange,
    params: PhaseParams,
    order: Order,
    allocation: Allocation,
) -> Times:
    """One round's phases."""
    total_hz, work, steps = jnp.asarray(exchange.total_hz), exchange.work, exchange.local_steps
    once_bits = jnp.where(index == 0, work.backbone_bits, jnp.zeros_like(total_hz))
    load = RoundLoad(
        local_steps=steps,
        activation_bits=(sent.activation_bits + sent.feature_bits) / steps,
        gradient_bits=(sent.gradient_bits + sent.feature_bits) / steps,
        distribution_bits=sent.weight_bits + once_bits,
        adapter_bits=sent.upload_bits,
        device_forward_flop=work.device_forward_flop,
        device_backward_flop=work.device_backward_flop,
        server_flop=work.server_flop,
    )
    link = RadioLink(
        total_hz, jnp.log2(1 + info.snr_hz / total_hz), jnp.log2(1 + info.server_snr_hz / total_hz)
    )
    parts = (load, params.devices, params.server, link)
    if allocation in ("min_max", "sqp"):
        fixed_s, work_hz_s = min_max_terms(*parts, participants=info.mask)
        method = "exact" if allocation == "min_max" else "sqp"
        shared = min_max_bandwidth(fixed_s, work_hz_s, total_hz, params.cap_hz, method)  # type: ignore[arg-type]
        band_hz = shared.bandwidth_hz
    elif allocation == "random":
        band_hz = jnp.minimum(random_bandwidth(key, info.mask, total_hz), params.cap_hz)
    elif allocation == "equal":
        band_hz = jnp.minimum(equal_bandwidth(info.mask, total_hz), params.cap_hz)
    else:
        band_hz = info.bandwidth_hz
    phases = round_phases(*parts, band_hz, participants=info.mask, order=order)
    return Times(
        uplink_s=phases.activation_s + phases.adapter_s,
        downlink_s=phases.distribution_s + phases.gradient_s,
        delay_s=round_delay(phases, order, info.mask),
        phases=phases,
    )
