"""The local training of a group of scheduled devices."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsplit.costs import wide_add
from jaxsplit.federated.optimizers import LearningParams, Optimizers, take_step
from jaxsplit.federated.scheme import Scheme
from jaxsplit.federated.stages import UPLOAD, CodedBits, Gradients, group_gradients
from jaxsplit.federated.state import World, in_rows
from jaxsplit.federated.upload import Change, upload


class Group(NamedTuple):
    """G scheduled devices; slots that are not needed repeat the first one with weight 0."""

    devices: jax.Array  # [G] int32
    weights: jax.Array  # [G] w_n, which sum to 1 over the scheduled set S_t


class Local(NamedTuple):
    """What moves on the devices of a group within a round, leading axis [G]."""

    adapters: Any  # ΔW_n, or ΔW without the axis if it is global: then it rests; or all weights
    adapter_optimizers: Any  # () of global adapters
    heads: Any  # θ_n; a shared head rests while adapters are global
    head_optimizers: Any  # () of a head that rests
    residuals: Any  # e_n, which rests until the upload; () without error feedback


class Sent(NamedTuple):
    """A group's part of the server's sums, without the axis of devices."""

    adapters: Any  # Σ w_n g_n of global adapters, Σ w_n (ΔW_n − ΔW) of copies, as it arrives
    head: Any  # the same of a shared head; () of personal ones


class Measured(NamedTuple):
    """What a group's training shows."""

    loss: jax.Array  # [G] mean over local steps
    bits: CodedBits  # [G, 2] sums over local steps
    upload_bits: jax.Array  # [G, 2] of the upload at the end


def train_group(
    key: jax.Array,
    group: Group,
    adapters: Any,
    heads: Any,
    head_optimizers: Any,
    residuals: Any,
    scheme: Scheme,
    optimizers: Optimizers,
    params: LearningParams,
    world: World,
) -> tuple[Local, Sent, Measured]:
    """Train a group of devices for a round.

    Args:
      key: PRNG key of the round; local step k of device n uses `fold_in(key, k·N + n)`.
      group: who trains.
      adapters: ΔW at the start of the round.
      heads: θ_n of the group, leading axis [G].
      head_optimizers: their states, leading axis [G]; () unless heads are personal.
      residuals: e_n of the group, leading axis [G]; () without error feedback.
      scheme: the choices, static.
      optimizers: of this round.
      params: the numbers, with those of the codecs.
      world: backbone and data.

    Returns:
      `(what the devices hold afterwards, what the server adds up, what was measured)`.
    """
    start = _start(adapters, heads, head_optimizers, residuals, scheme, optimizers)
    none = jnp.zeros((*group.devices.shape, 2), jnp.int32)

    def local_step(local: Local, step: ArrayLike) -> tuple[Local, Gradients]:
        folds = step * world.sizes.shape[0] + group.devices
        keys = jax.vmap(lambda fold: jax.random.fold_in(key, fold))(folds)
        gradients = group_gradients(
            keys,
            group.devices,
            group.weights,
            local.adapters,
            local.heads,
            scheme,
            params.codec,
            world,
        )
        return _move(local, gradients, scheme, optimizers), gradients

    def step_of_copies(
        carry: tuple[Local, CodedBits], step: jax.Array
    ) -> tuple[tuple[Local, CodedBits], jax.Array]:
        local, bits = carry
        local, gradients = local_step(local, step)
        return (local, CodedBits(*map(wide_add, bits, gradients.bits))), gradients.loss

    if scheme.adapters_per_device:
        steps = jnp.arange(scheme.local_steps, dtype=group.devices.dtype)
        (end, bits), losses = jax.lax.scan(step_of_copies, (start, CodedBits(none, none)), steps)
        losses = jnp.mean(losses, axis=0)
        end, change, upload_bits = _send(key, group, start, end, scheme, params)
        adapters, of_heads = _weighted_sum(group.weights, change.adapters), change.head
    else:
        end, (losses, adapters, of_heads, bits) = local_step(start, 0)
        upload_bits = none
    head = _weighted_sum(group.weights, of_heads) if scheme.heads == "shared" else ()
    return end, Sent(adapters, head), Measured(losses, bits, upload_bits)


def _send(
    key: jax.Array, group: Group, start: Local, end: Local, scheme: Scheme, params: LearningParams
) -> tuple[Local, Change, jax.Array]:
    """What each device has changed, as it arrives at the server, and the upload's bits [G, 2]."""

    def of_device(
        device: jax.Array, change: Change, residual: Any
    ) -> tuple[Change, Any, jax.Array]:
        key_upload = jax.random.fold_in(jax.random.fold_in(key, device), UPLOAD)
        return upload(key_upload, change, residual, scheme, params.upload_codec)

    change = Change(_difference(end.adapters, start.adapters), _difference(end.heads, start.heads))
    change, residuals, bits = jax.vmap(of_device)(group.devices, change, end.residuals)
    return end._replace(residuals=residuals), change, bits


def _start(
    adapters: Any,
    heads: Any,
    head_optimizers: Any,
    residuals: Any,
    scheme: Scheme,
    optimizers: Optimizers,
) -> Local:
    """Hand out the adapters; what is averaged afterwards starts with a fresh optimizer."""
    if not scheme.adapters_per_device:
        return Local(adapters, (), heads, head_optimizers, residuals)
    copies = in_rows(adapters, jax.tree.leaves(heads)[0].shape[0])
    if scheme.heads == "shared":
        head_optimizers = jax.vmap(optimizers.head.init)(heads)
    adapter_optimizers = jax.vmap(optimizers.adapters.init)(copies)
    return Local(copies, adapter_optimizers, heads, head_optimizers, residuals)


def _move(local: Local, gradients: Gradients, scheme: Scheme, optimizers: Optimizers) -> Local:
    """One step of everything that moves on the devices."""
    if scheme.adapters_per_device:
        weights, state = jax.vmap(functools.partial(take_step, optimizers.adapters))(
            local.adapters, local.adapter_optimizers, gradients.adapters
        )
        local = local._replace(adapters=weights, adapter_optimizers=state)
    if scheme.adapters_per_device or scheme.heads == "personal":
        weights, state = jax.vmap(functools.partial(take_step, optimizers.head))(
            local.heads, local.head_optimizers, gradients.heads
        )
        local = local._replace(heads=weights, head_optimizers=state)
    return local


def _difference(new: Any, old: Any) -> Any:
    return jax.tree.map(jnp.subtract, new, old)


def _weighted_sum(weights: jax.Array, tree: Any) -> Any:
    """Σ w_n x_n over the leading axis; no matrix product, which accelerators round to 10 bits."""

    def of_leaf(leaf: jax.Array) -> jax.Array:
        column = weights.astype(leaf.dtype).reshape(-1, *(1,) * (leaf.ndim - 1))
        return jnp.sum(column * leaf, axis=0)

    return jax.tree.map(of_leaf, tree)
