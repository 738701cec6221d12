"""One round of split federated fine-tuning: every scheme is a configuration of it."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from jaxsplit.federated.local import Group, Sent, train_group
from jaxsplit.federated.optimizers import (
    LearningParams,
    Optimizers,
    optimizers_at,
    take_step,
    with_codec_numbers,
)
from jaxsplit.federated.scheme import Scheme
from jaxsplit.federated.stages import CodedBits
from jaxsplit.federated.state import LearningState, World, in_rows


class RoundInfo(NamedTuple):
    """What a round shows."""

    loss: jax.Array  # [] mean training loss of the set before its update, NaN if it is empty
    device_loss: jax.Array  # [N] of each scheduled device, mean over local steps; NaN of others
    coded_bits: CodedBits  # [N, 2] that the codec counted, exact; 0 of others, and without a codec
    upload_bits: jax.Array  # [N, 2] that the upload codec counted, likewise


def federated_round(
    key: jax.Array,
    state: LearningState,
    mask: jax.Array,
    scheme: Scheme,
    params: LearningParams,
    world: World,
    round_index: ArrayLike = 0,
) -> tuple[LearningState, RoundInfo]:
    r"""Run one round for the scheduled devices (FedFT §II-A, (2)–(4); SFT §III, (3)–(8)).

    Global adapters:
    $\Delta W \leftarrow \Delta W - \eta \frac1{K}\sum_{n\in S} g_n$ on the server. Adapters per
    device: each takes `scheme.local_steps` steps on a copy $\Delta W_n$ of its own, from a fresh
    optimizer state, and $\Delta W \leftarrow \sum_{n\in S} |D_n| \Delta W_n / \sum_{m\in S} |D_m|$.
    Personal heads: $\theta_n \leftarrow \theta_n - \eta\,\partial F_n/\partial\theta_n$ with each
    local step. A shared head is put together as the adapters are. In sequential order each device
    starts from the weights of the one before, and the last one's stay. With an upload codec the
    server adds up what arrives of $\Delta W_n - \Delta W$, see `jaxsplit.federated.upload`.

    Scheduled devices are taken in groups of `scheme.devices_per_step`, as many as there are: the
    others cost nothing. The backbone is never copied.

    Args:
      key: PRNG key of this round; device n draws its k-th batch from `fold_in(key, k·N + n)`,
        k = 0, 1, …, and from that key its augmentation and its dropout; its upload's codec has
        a fold of the key of k = 0.
      state: from `init_learning` or the round before.
      mask: the scheduled set S_t, bool [N].
      scheme: the choices, static.
      params: the numbers.
      world: backbone and data.
      round_index: t, scalar int32, for `scheme.schedule`.

    Returns:
      `(state, info)`. Nothing but the personal state of scheduled devices and what is common to
      all moves, and without scheduled devices nothing at all.
    """
    num_devices = mask.shape[0]
    group_size = 1 if scheme.order == "sequential" else min(scheme.devices_per_step, num_devices)
    count = jnp.sum(mask, dtype=jnp.int32)
    optimizers = optimizers_at(scheme, params, round_index)
    params = with_codec_numbers(params, scheme)
    weights = _shares(mask, scheme, world)
    order = _scheduled_first(mask, group_size)

    # Groups of scheduled devices: batches, forward, backward, local steps.
    def run_group(index: jax.Array, total: _Totals) -> _Totals:
        slots = jax.lax.dynamic_slice(order, (index * group_size,), (group_size,))
        return _add_group(key, slots, weights, total, state, scheme, optimizers, params, world)

    num_groups = (count + group_size - 1) // group_size
    total = jax.lax.fori_loop(0, num_groups, run_group, _no_groups(state, scheme))

    # The server puts together what is common; personal heads are already where they belong.
    combine = functools.partial(_combine, count=count, scheme=scheme)
    adapters, adapter_optimizer = combine(
        optimizers.adapters, state.adapters, state.adapter_optimizer, total.sent.adapters
    )
    if scheme.heads == "personal":
        heads, head_optimizers = total.personal
    else:
        head, head_optimizers = combine(
            optimizers.head, _first_row(state.heads), state.head_optimizers, total.sent.head
        )
        heads = in_rows(head, num_devices)
    loss = jnp.mean(total.device_loss, where=mask)
    return LearningState(
        adapters=adapters,
        adapter_optimizer=adapter_optimizer,
        heads=heads,
        head_optimizers=head_optimizers,
        participation=state.participation + mask.astype(jnp.int32),
        residuals=total.residuals,
    ), RoundInfo(
        loss=loss,
        device_loss=total.device_loss,
        coded_bits=total.coded_bits,
        upload_bits=total.upload_bits,
    )


class _Totals(NamedTuple):
    """What the groups of a round build up."""

    personal: Any  # (heads, optimizers) [N, ...], those of finished groups updated; () if shared
    residuals: Any  # [N, P], those of finished groups updated; () without error feedback
    sent: Sent  # sums over finished groups
    device_loss: jax.Array  # [N], NaN where no group has been
    coded_bits: CodedBits  # [N, 2], 0 where no group has been
    upload_bits: jax.Array  # [N, 2], likewise


def _no_groups(state: LearningState, scheme: Scheme) -> _Totals:
    """The totals before the first group."""
    personal: Any = (state.heads, state.head_optimizers)
    head: Any = ()
    if scheme.heads == "shared":
        personal, head = (), jax.tree.map(jnp.zeros_like, _first_row(state.heads))
    no_bits = jnp.zeros((*state.participation.shape, 2), jnp.int32)
    return _Totals(
        personal=personal,
        residuals=state.residuals,
        sent=Sent(jax.tree.map(jnp.zeros_like, state.adapters), head),
        device_loss=jnp.full(state.participation.shape, jnp.nan, jnp.float32),
        coded_bits=CodedBits(no_bits, no_bits),
        upload_bits=no_bits,
    )


def _first_row(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[0], tree)


def _shares(mask: jax.Array, scheme: Scheme, world: World) -> jax.Array:
    """Weights [N] over the scheduled set: 1/K of gradients, |D_n| / Σ|D_m| of copies.

    One after another each device's change counts whole.
    """
    if scheme.order == "sequential":
        return mask.astype(jnp.float32)
    sizes = world.sizes if scheme.adapters_per_device else jnp.ones_like(world.sizes)
    scheduled = jnp.where(mask, sizes, 0).astype(jnp.float32)
    return scheduled / jnp.maximum(jnp.sum(scheduled), 1)


def _scheduled_first(mask: jax.Array, group_size: int) -> jax.Array:
    """Device indices, scheduled ones first, padded to whole groups with N, which no device has.

    There is one group more than any round needs. Were the first the only one, it would not depend
    on the loop over groups, XLA would move its training out of the loop, and a round without
    devices would cost as much as one with all.
    """
    num_devices = mask.shape[0]
    order = jnp.argsort(~mask, stable=True)
    order = jnp.where(jnp.arange(num_devices) < jnp.sum(mask), order, num_devices)
    padding = group_size + -num_devices % group_size
    return jnp.pad(order, (0, padding), constant_values=num_devices)


def _add_group(
    key: jax.Array,
    slots: jax.Array,
    weights: jax.Array,
    total: _Totals,
    state: LearningState,
    scheme: Scheme,
    optimizers: Optimizers,
    params: LearningParams,
    world: World,
) -> _Totals:
    """Train the devices of a group; the index N stands for none."""
    in_use = slots < weights.shape[0]
    devices = jnp.where(in_use, slots, slots[0])  # finite wherever the group is
    group = Group(devices, jnp.where(in_use, weights[devices], 0))
    held = (total.personal or (state.heads, ()), total.residuals)
    (heads, head_optimizers), residuals = jax.tree.map(lambda leaf: leaf[devices], held)
    adapters = state.adapters
    if scheme.order == "sequential":  # from where the device before has left them
        adapters = jax.tree.map(jnp.add, adapters, total.sent.adapters)
        if scheme.heads == "shared":
            heads = jax.tree.map(jnp.add, heads, in_rows(total.sent.head, len(slots)))
    of_group = (adapters, heads, head_optimizers, residuals)
    end, sent, measured = train_group(key, group, *of_group, scheme, optimizers, params, world)

    def put(everyone: jax.Array, of_group: jax.Array) -> jax.Array:
        return everyone.at[slots].set(of_group, mode="drop")  # the index N is dropped

    personal = (end.heads, end.head_optimizers) if total.personal else ()
    return _Totals(
        personal=jax.tree.map(put, total.personal, personal),
        residuals=jax.tree.map(put, total.residuals, end.residuals),
        sent=jax.tree.map(jnp.add, total.sent, sent),
        device_loss=put(total.device_loss, measured.loss),
        coded_bits=jax.tree.map(put, total.coded_bits, measured.bits),
        upload_bits=put(total.upload_bits, measured.upload_bits),
    )


def _combine(
    optimizer: optax.GradientTransformation,
    common: Any,
    optimizer_state: Any,
    total: Any,
    *,
    count: jax.Array,
    scheme: Scheme,
) -> tuple[Any, Any]:
    """Move what is common: by the mean change of its copies, or one step on the mean gradient."""
    if scheme.adapters_per_device:
        after = optax.apply_updates(common, total), optimizer_state
    else:
        after = take_step(optimizer, common, optimizer_state, total)
    # Momentum must not move it in a round without devices.
    return jax.tree.map(
        lambda new, old: jnp.where(count > 0, new, old), after, (common, optimizer_state)
    )
