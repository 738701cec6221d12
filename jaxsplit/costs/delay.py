"""How long a round takes, phase by phase, and what it puts on the air (SFT §V-A)."""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

Order = Literal["parallel", "sequential"]


class Processor(NamedTuple):
    """What computes. Numbers, or arrays [N] for N devices."""

    clock_hz: ArrayLike  # f, cycles per second
    cores: ArrayLike  # C
    flop_per_cycle: ArrayLike  # D, of one core

    @property
    def flop_per_s(self) -> jax.Array:
        """FLOP per second, f·C·D."""
        # In this order float32 never sees more than the result.
        return _real(self.clock_hz) * _real(self.cores) * _real(self.flop_per_cycle)


class RadioLink(NamedTuple):
    """A radio whose SNR does not depend on the bandwidth, as SFT has it."""

    total_bandwidth_hz: ArrayLike  # B, C in SFT (11)
    uplink_bit_per_s_hz: ArrayLike  # log2(1 + SNR_n), [N] or one for all
    downlink_bit_per_s_hz: ArrayLike  # log2(1 + SNR_s)


class RoundLoad(NamedTuple):
    """What a round has to send and to compute. Numbers, or arrays [N].

    Bits are those on the air, compressed; where they differ between the steps of a round, their
    mean. What a scheme does not have is 0.
    """

    local_steps: ArrayLike  # K, mini-batches; a last one that is not full counts by its samples
    activation_bits: ArrayLike = 0.0  # βΨ^A, up, per step
    gradient_bits: ArrayLike = 0.0  # βΨ^G, down, per step
    distribution_bits: ArrayLike = 0.0  # Ψ or Ψ^L, down, once: round 1 brings the frozen half, too
    adapter_bits: ArrayLike = 0.0  # Ψ^L, up, once
    device_forward_flop: ArrayLike = 0.0  # Φ_c^F, per step
    device_backward_flop: ArrayLike = 0.0  # Φ_c^B, per step
    server_flop: ArrayLike = 0.0  # Φ_s^F + Φ_s^B, per step


class Phases(NamedTuple):
    """Seconds that each device spends in a round, [N] each, all local steps together.

    The fields follow each other in time, within a step those of CC to DU.
    """

    distribution_s: jax.Array  # ED, adapters (in round 1 also the frozen half) come down
    device_forward_s: jax.Array  # CC
    activation_s: jax.Array  # IT, activations go up
    server_wait_s: jax.Array  # SC, while the server works for other devices
    server_s: jax.Array  # SC, while it works for this device
    gradient_s: jax.Array  # GT, gradients come down
    device_backward_s: jax.Array  # DU
    adapter_s: jax.Array  # LT, adapters go up

    @property
    def total_s(self) -> jax.Array:
        """τ_n, the sum of the phases (SFT (18))."""
        return jnp.sum(jnp.stack(self), axis=0)


class MinMaxTerms(NamedTuple):
    """Terms of the delay τ_n = a_n + c_n / b_n of a bandwidth b_n, [N] each."""

    fixed_s: jax.Array  # a_n
    work_hz_s: jax.Array  # c_n


class Traffic(NamedTuple):
    """Bits over the air in a round, all devices together."""

    up_bits: jax.Array
    down_bits: jax.Array

    @property
    def total_bits(self) -> jax.Array:
        """Both directions."""
        return self.up_bits + self.down_bits


def round_phases(
    load: RoundLoad,
    devices: Processor,
    server: Processor,
    link: RadioLink,
    bandwidth_hz: ArrayLike,
    participants: jax.Array | None = None,
    order: Order = "parallel",
) -> Phases:
    r"""The phases of a round, per device.

    SFT (11)–(17), over K local steps: ED $\Psi / (B \log_2(1 + SNR_s))$, a broadcast at full
    bandwidth; CC $K\Phi_c^F / (f_n C_n D_n)$; IT $K\beta\Psi^A / (b_n \log_2(1 + SNR_n))$; SC
    $(\Phi_s^F + \Phi_s^B) / (f_s C_s D_s)$ per job; GT $K\beta\Psi^G / (b_n \log_2(1 + SNR_s))$;
    DU $K\Phi_c^B / (f_n C_n D_n)$; LT $\Psi^L / (b_n \log_2(1 + SNR_n))$.

    Ours, where SFT is silent: the server serves devices one after another and in each step every
    device waits for all jobs. With m's job of $s_m$ seconds device n spends
    $\sum_m \min(K_n, K_m) s_m$ in SC, which is K·N·SC for equal devices.

    Federated learning has no activations and no server's part. `order="sequential"` is split
    learning: each device in turn, alone, on the full band.

    Args:
      load: bits and FLOP.
      devices: their processors.
      server: its processor.
      link: spectral efficiencies and total bandwidth.
      bandwidth_hz: b_n, [N] or one for all; unused if sequential.
      participants: [N] bool, who takes part; None for all. The others spend no time.
      order: "parallel" or "sequential".

    Returns:
      Seconds, [N] each, where N is the largest shape among the arguments.

    Raises:
      ValueError: an unknown order, or negative bits, FLOP or steps.

    Example:
      >>> load = RoundLoad(local_steps=10.0, activation_bits=4e6, gradient_bits=2e6,
      ...     adapter_bits=8e6, device_forward_flop=1e9, server_flop=1e9)
      >>> phones, server = Processor(1e9, 10, 1), Processor(1e9, 100, 1)
      >>> phases = round_phases(load, phones, server, RadioLink(4e6, 4.0, 2.0),
      ...     jnp.array([1e6, 2e6]))
      >>> for name, seconds in phases._asdict().items():
      ...     print(name, [round(s, 3) for s in seconds.tolist()])
      distribution_s [0.0, 0.0]
      device_forward_s [1.0, 1.0]
      activation_s [10.0, 5.0]
      server_wait_s [0.1, 0.1]
      server_s [0.1, 0.1]
      gradient_s [10.0, 5.0]
      device_backward_s [0.0, 0.0]
      adapter_s [2.0, 1.0]
    """
    needs = _needs(load, devices, server, link, participants, order, jnp.shape(bandwidth_hz))
    hz = link.total_bandwidth_hz if order == "sequential" else bandwidth_hz
    share_hz = jnp.broadcast_to(_real(hz), needs.activation_s.shape)
    return needs._replace(
        activation_s=_air_time(needs.activation_s, share_hz),
        gradient_s=_air_time(needs.gradient_s, share_hz),
        adapter_s=_air_time(needs.adapter_s, share_hz),
    )


def min_max_terms(
    load: RoundLoad,
    devices: Processor,
    server: Processor,
    link: RadioLink,
    participants: jax.Array | None = None,
) -> MinMaxTerms:
    r"""What a bandwidth solver needs: τ_n = a_n + c_n / b_n, the sum of `round_phases`.

    $a_n$ = ED + K(CC + N·SC + DU) and
    $c_n = K\beta(\Psi^A / \log_2(1 + SNR_n) + \Psi^G / \log_2(1 + SNR_s))
    + \Psi^L / \log_2(1 + SNR_n)$ (SFT (11)–(18)).

    Args:
      load: bits and FLOP; see `round_phases`, as for all that follow.
      devices: their processors.
      server: its processor.
      link: spectral efficiencies and total bandwidth.
      participants: [N] bool; None for all. The others have a_n = c_n = 0.

    Returns:
      a_n in seconds and c_n in Hz·s, [N] each.

    Raises:
      ValueError: negative bits, FLOP or steps.

    Example:
      >>> load = RoundLoad(local_steps=10.0, activation_bits=4e6, gradient_bits=2e6,
      ...     adapter_bits=8e6, device_forward_flop=jnp.array([1e9, 3e9]), server_flop=1e9)
      >>> terms = min_max_terms(load, Processor(1e9, 10, 1), Processor(1e9, 100, 1),
      ...     RadioLink(4e6, 4.0, 2.0))
      >>> [round(s, 3) for s in terms.fixed_s.tolist()], terms.work_hz_s.tolist()
      ([1.2, 3.2], [22000000.0, 22000000.0])
    """
    needs = _needs(load, devices, server, link, participants, "parallel", ())
    on_air = needs.activation_s + needs.gradient_s + needs.adapter_s
    fixed = (
        needs.distribution_s
        + needs.device_forward_s
        + needs.server_wait_s
        + needs.server_s
        + needs.device_backward_s
    )
    return MinMaxTerms(fixed, on_air)


def round_delay(
    phases: Phases, order: Order = "parallel", participants: jax.Array | None = None
) -> jax.Array:
    r"""Time that a round takes.

    Args:
      phases: of the devices, [N] each, made with the same order.
      order: "parallel", the slowest device, $\max_n \tau_n$ (SFT (19)); "sequential", one device
        after another as in split learning, $\sum_n \tau_n$.
      participants: [N] bool, who counts; None for all.

    Returns:
      Seconds, a scalar; 0 if nobody takes part.

    Raises:
      ValueError: an unknown order.

    Example:
      >>> phases = Phases(*[jnp.array([1.0, 2.0])] * 8)
      >>> float(round_delay(phases)), float(round_delay(phases, "sequential"))
      (16.0, 24.0)
    """
    _check_order(order)
    total_s = phases.total_s
    if participants is not None:
        total_s = jnp.where(participants, total_s, 0)
    return jnp.max(total_s) if order == "parallel" else jnp.sum(total_s)


def round_traffic(
    load: RoundLoad, participants: jax.Array | None = None, num_devices: int | None = None
) -> Traffic:
    """Bits that a round puts on the air; what is broadcast counts once for every device.

    Args:
      load: bits per device; the same for all where it has no array.
      participants: [N] bool; None for all.
      num_devices: N, where neither `load` nor `participants` tells.

    Returns:
      Bits of all devices that take part, scalars.

    Raises:
      ValueError: negative bits, FLOP or steps.

    Example:
      >>> load = RoundLoad(local_steps=10.0, activation_bits=3e6, gradient_bits=2e6,
      ...     distribution_bits=8e6, adapter_bits=8e6)
      >>> [float(bits) for bits in round_traffic(load, num_devices=4)]
      [152000000.0, 112000000.0]
    """
    _check_load(load)
    who = [] if participants is None else [participants.shape]
    known = [] if num_devices is None else [(num_devices,)]
    shape = np.broadcast_shapes(*who, *known, *map(jnp.shape, load))
    steps = _real(load.local_steps)
    up = steps * _real(load.activation_bits) + _real(load.adapter_bits)
    down = steps * _real(load.gradient_bits) + _real(load.distribution_bits)
    if participants is not None:
        up, down = jnp.where(participants, up, 0), jnp.where(participants, down, 0)
    return Traffic(*(jnp.sum(jnp.broadcast_to(bits, shape)) for bits in (up, down)))


def _needs(
    load: RoundLoad,
    devices: Processor,
    server: Processor,
    link: RadioLink,
    participants: jax.Array | None,
    order: Order,
    shape: tuple[int, ...],
) -> Phases:
    """The phases, [N] each, with those on b_n in Hz·s: still to be divided by the bandwidth."""
    _check_order(order)
    _check_load(load)
    who: tuple[int, ...] = () if participants is None else participants.shape
    shape = np.broadcast_shapes(shape, who, *map(jnp.shape, (*load, *devices, *server, *link)))
    work = RoundLoad(*(jnp.broadcast_to(_real(value), shape) for value in load))
    takes_part = jnp.broadcast_to(
        jnp.asarray(True if participants is None else participants), shape
    )
    steps = _real(work.local_steps)
    up, down = _real(link.uplink_bit_per_s_hz), _real(link.downlink_bit_per_s_hz)
    job_s = jnp.where(takes_part, _real(work.server_flop) / server.flop_per_s, 0)
    needs = Phases(
        distribution_s=_real(work.distribution_bits) / (_real(link.total_bandwidth_hz) * down),
        device_forward_s=steps * (_real(work.device_forward_flop) / devices.flop_per_s),
        activation_s=steps * (_real(work.activation_bits) / up),
        server_wait_s=_waiting(steps, job_s) if order == "parallel" else jnp.zeros_like(job_s),
        server_s=steps * job_s,
        gradient_s=steps * (_real(work.gradient_bits) / down),
        device_backward_s=steps * (_real(work.device_backward_flop) / devices.flop_per_s),
        adapter_s=_real(work.adapter_bits) / up,
    )
    return Phases(*(jnp.where(takes_part, need, 0) for need in needs))


def _waiting(steps: jax.Array, job_s: jax.Array) -> jax.Array:
    """Time in which the server works for others: device m is there in min(K_n, K_m) steps."""
    if job_s.ndim == 0:
        return jnp.zeros_like(job_s)
    together = jnp.minimum(steps[:, None], steps[None, :])
    others = ~jnp.eye(job_s.size, dtype=bool)
    return jnp.sum(jnp.where(others, together * job_s[None, :], 0), axis=1)


def _air_time(work_hz_s: jax.Array, bandwidth_hz: jax.Array) -> jax.Array:
    """Nothing to send takes no time, even without bandwidth, where 0/0 would be NaN."""
    sends = work_hz_s > 0
    return jnp.where(sends, work_hz_s / jnp.where(sends, bandwidth_hz, 1), 0)


def _real(value: ArrayLike) -> jax.Array:
    """As float32, or float64 where JAX is set to it: bits and FLOP exceed 32-bit integers."""
    return jnp.asarray(value, jnp.result_type(float))


def _check_load(load: RoundLoad) -> None:
    for name, value in load._asdict().items():
        # Inside jit there is no value yet; a negative one shows itself in the delay.
        if not isinstance(value, jax.core.Tracer) and np.any(np.asarray(value) < 0):
            raise ValueError(f"{name}={value}: choose 0 or more")


def _check_order(order: str) -> None:
    if order not in get_args(Order):
        raise ValueError(f"order={order!r} is unknown: choose one of {get_args(Order)}")
