"""A federated round as a plain Python loop over devices: no vmap, no scan.

Written from the papers' steps, one branch for global adapters (FedFT §II-A) and one for adapters
per device (SFT §III); the fast round in `jaxsplit.federated` must equal it. Without a codec the
model is not even split.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxsplit.data import draw_batch
from jaxsplit.federated import LearningParams, LearningState, Scheme, World


class ReferenceRound(NamedTuple):
    """What a round leaves."""

    adapters: Any
    heads: list[Any]  # of each device
    loss: float  # mean over the scheduled set
    device_loss: np.ndarray  # [N], NaN for devices that rest
    adapter_optimizer: Any
    head_optimizers: Any  # personal: a list over devices
    coded_bits: np.ndarray  # [N, 2] int64, up and down
    upload_bits: np.ndarray  # [N] int64
    residuals: Any  # float32 [N, P]; () without error feedback


def cross_entropy(logits: jax.Array, label: int) -> jax.Array:
    """-log softmax(logits)[label], written out."""
    return jax.numpy.log(jax.numpy.sum(jax.numpy.exp(logits))) - logits[label]


def squared_error(outputs: jax.Array, label: float) -> jax.Array:
    """(ŷ − y)² of a regression's only output."""
    return (outputs[0] - label) ** 2


def head_outputs(head: Any, features: jax.Array, scheme: Scheme) -> jax.Array:
    """Outputs of a head for the features [D] of one sample: one dense layer, or two."""
    layers = head["params"]
    if "hidden" in layers:
        hidden = features @ layers["hidden"]["kernel"] + layers["hidden"]["bias"]
        is_relu = scheme.head.activation == "relu"
        features = jax.numpy.maximum(hidden, 0) if is_relu else jax.numpy.tanh(hidden)
    return features @ layers["out"]["kernel"] + layers["out"]["bias"]


def device_loss(
    adapters: Any,
    head: Any,
    inputs: Any,
    labels: list[float],
    scheme: Scheme,
    world: World,
    key_dropout: jax.Array | None = None,
) -> jax.Array:
    """F_n of a mini-batch through the whole, unsplit model."""
    features = apply(None, adapters, inputs, scheme, world, key_dropout)
    return loss_of_features(head, features, labels, scheme)


def apply(
    method: Callable | None,
    trained: Any,
    inputs: Any,
    scheme: Scheme,
    world: World,
    key_dropout: jax.Array | None = None,
) -> Any:
    """The model, or a part of it, with what is trained: adapters, or all weights."""
    rngs = None if key_dropout is None else {"dropout": key_dropout}
    variables = {"params": world.backbone, "lora": trained}
    if scheme.model.lora is None:
        variables = {"params": trained}
    return scheme.model.apply(variables, inputs, method=method, rngs=rngs)


def loss_of_features(
    head: Any, features: jax.Array, labels: list[float], scheme: Scheme
) -> jax.Array:
    """F_n behind the encoder."""
    loss = squared_error if scheme.task.metric_name == "pearson" else cross_entropy
    losses = [
        loss(head_outputs(head, features[i], scheme), label) for i, label in enumerate(labels)
    ]
    return sum(losses[1:], losses[0]) / len(losses)


loss_and_gradients = jax.value_and_grad(device_loss, argnums=(0, 1))


def coded_loss_and_gradients(
    adapters: Any,
    head: Any,
    inputs: Any,
    labels: list[float],
    scheme: Scheme,
    world: World,
    key_dropout: jax.Array | None,
    key: jax.Array,
    weight: float,
) -> tuple[tuple[jax.Array, tuple[Any, Any]], tuple[jax.Array, jax.Array]]:
    """The same over a link with the scheme's codec, one sample after another, and its bits.

    `weight` is that of a global adapter's gradient, which the gradient comes down with.
    """
    codec, cut = scheme.codec, scheme.cut

    def on_device(adapters: Any) -> Any:
        def blocks(module: Any, inputs: Any) -> Any:
            return module.encode(module.embed(inputs), 0, cut)

        return apply(blocks, adapters, inputs, scheme, world, key_dropout)

    def on_server(adapters: Any, head: Any, tokens: jax.Array) -> jax.Array:
        def rest(module: Any, sent: Any) -> jax.Array:
            return module.features(sent, cut)

        features = apply(rest, adapters, sent._replace(tokens=tokens), scheme, world, key_dropout)
        return loss_of_features(head, features, labels, scheme)

    def over_the_link(fold: int, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        rows = tokens.reshape(len(tokens), -1)
        arrived, bits = codec.transmit(jax.random.fold_in(key, fold), rows, codec.params)
        return arrived.reshape(tokens.shape), bits.sum()

    sent = on_device(adapters)
    arrived, up = over_the_link(3, sent.tokens)
    loss, (of_server, of_head, of_tokens) = jax.value_and_grad(on_server, argnums=(0, 1, 2))(
        adapters, head, arrived
    )
    if cut == 0 and scheme.model.lora is not None:
        return (loss, (of_server, of_head)), (up, 0 * up)
    if codec.gradient == "masked":
        of_tokens = jax.numpy.where(arrived == 0, 0, of_tokens)
    came_back, down = over_the_link(4, weight * of_tokens)
    of_device = jax.grad(lambda adapters: (on_device(adapters).tokens * came_back).sum())(adapters)
    gradient = jax.tree.map(lambda a, b: a + b / weight, of_server, of_device)
    return (loss, (gradient, of_head)), (up, down)


def sent_once(adapters: Any, head: Any, scheme: Scheme) -> list[Any]:
    """What a device uploads at the end of a round: its blocks' adapters, a shared head on it."""
    if scheme.cut is not None:
        adapters = {
            name: jax.tree.map(lambda leaf: leaf[: scheme.cut], part)
            for name, part in adapters.items()
            if name == "blocks" and scheme.cut > 0
        }
    has_head = scheme.heads == "shared" and scheme.head_side == "device"
    return [adapters, head if has_head else {}]


def over_the_upload(
    key: jax.Array,
    before: tuple[Any, Any],
    after: tuple[Any, Any],
    residual: np.ndarray,
    scheme: Scheme,
    params: LearningParams,
) -> tuple[tuple[Any, Any], np.ndarray, int]:
    """A device's copy as the server gets it: c = C(Δ + e), e ← Δ + e − c; and the bits."""
    codec = scheme.upload_codec
    old, shape = jax.tree.flatten(sent_once(*before, scheme))
    new = jax.tree.leaves(sent_once(*after, scheme))
    change = np.concatenate([np.ravel(b - a) for a, b in zip(old, new, strict=True)])
    wanted = change + residual
    numbers = codec.params if params.upload_codec is None else params.upload_codec
    row, bits = codec.transmit(key, jax.numpy.asarray(wanted)[None], numbers)
    arrived = np.asarray(row[0])
    pieces = np.split(arrived, np.cumsum([leaf.size for leaf in old])[:-1])
    summed = [a + piece.reshape(a.shape) for a, piece in zip(old, pieces, strict=True)]
    adapters, head = jax.tree.unflatten(shape, summed)
    if scheme.cut is not None and "blocks" in adapters:  # the server's blocks are there already
        on_server = jax.tree.map(lambda leaf: leaf[scheme.cut :], after[0]["blocks"])
        both = (adapters["blocks"], on_server)
        adapters["blocks"] = jax.tree.map(lambda *rows: np.concatenate(rows), *both)
    copy = ({**after[0], **adapters}, head or after[1])
    return copy, wanted - arrived, int(bits[0])


class PlainSgd:
    """θ − η g, by hand."""

    def __init__(self, rate: float):
        """With η."""
        self.rate = rate

    def init(self, weights: Any) -> Any:
        """Nothing to remember."""
        return ()

    def step(self, weights: Any, state: Any, gradient: Any) -> tuple[Any, Any]:
        """One step."""
        return jax.tree.map(lambda w, g: w - self.rate * g, weights, gradient), state


class OptaxOptimizer:
    """The scheme's own optimizer."""

    def __init__(self, transformation: Any):
        """With its learning rate in it."""
        self.init, self.update = transformation

    def step(self, weights: Any, state: Any, gradient: Any) -> tuple[Any, Any]:
        """One step."""
        updates, state = self.update(gradient, state, weights)
        return jax.tree.map(lambda w, u: w + u, weights, updates), state


def reference_round(
    key: jax.Array,
    state: LearningState,
    mask: np.ndarray,
    scheme: Scheme,
    params: LearningParams,
    world: World,
    wrap: Callable[[Callable], Callable] = lambda gradient: gradient,
    *,
    factor: float = 1.0,
    by_hand: bool = True,
) -> ReferenceRound:
    """One round for the scheduled devices, at least one.

    `wrap` may compile the gradient of a single device, `factor` is that of the learning rates in
    this round. The optimizer is plain SGD `by_hand`, or else the scheme's.
    """
    num_devices = len(mask)
    scheduled = [n for n in range(num_devices) if mask[n]]
    rates = [factor * np.float32(rate) for rate in params[:2]]
    make = PlainSgd if by_hand else lambda rate: OptaxOptimizer(scheme.optimizer(rate))
    adapter_optimizer, head_optimizer = (make(rate) for rate in rates)
    personal = scheme.heads == "personal"

    def minibatch(n: int, key_n: jax.Array) -> tuple[Any, list[float], jax.Array | None]:
        batch = draw_batch(key_n, world.indices[n], world.sizes[n], scheme.batch_size)
        inputs = jax.tree.map(lambda leaf: leaf[batch], world.inputs)
        if scheme.transform is not None:
            inputs = scheme.transform.augment(jax.random.fold_in(key_n, 1), inputs)
        dropout = scheme.model.lora is not None and scheme.model.lora.dropout
        key_dropout = jax.random.fold_in(key_n, 2) if dropout else None
        return inputs, [world.labels[i].item() for i in batch], key_dropout

    def gradients(n: int, k: int, adapters: Any, head: Any) -> tuple[float, tuple[Any, Any]]:
        key_n = jax.random.fold_in(key, k * num_devices + n)
        inputs, labels, key_dropout = minibatch(n, key_n)
        arguments = (adapters, head, inputs, labels, scheme, world)
        if scheme.codec is None:
            return wrap(loss_and_gradients)(*arguments, key_dropout)
        is_global = scheme.model.lora is not None and not scheme.model.lora.per_device
        weight = np.float32(1 / len(scheduled)) if is_global else 1.0
        coded = wrap(coded_loss_and_gradients)
        result, bits = coded(*arguments, key_dropout, key_n, weight)
        coded_bits[n] += [int(count) for count in bits]
        return result

    heads = [jax.tree.map(lambda leaf, n=n: leaf[n], state.heads) for n in range(num_devices)]
    head_states, adapter_state = state.head_optimizers, state.adapter_optimizer
    if personal:
        head_states = [
            jax.tree.map(lambda leaf, n=n: leaf[n], head_states) for n in range(num_devices)
        ]
    losses = np.full(num_devices, np.nan, np.float32)
    coded_bits = np.zeros((num_devices, 2), np.int64)
    upload_bits, residuals = np.zeros(num_devices, np.int64), state.residuals
    if scheme.error_feedback:
        residuals = np.array(residuals)

    if scheme.model.lora is not None and not scheme.model.lora.per_device:
        # FedFT (2)–(4): everyone at the same ΔW, then one step on the mean gradient.
        total = jax.tree.map(np.zeros_like, (state.adapters, heads[0]))
        for n in scheduled:
            losses[n], gradient = gradients(n, 0, state.adapters, heads[n])
            total = jax.tree.map(lambda a, b: a + b, total, gradient)
            if personal:
                heads[n], head_states[n] = head_optimizer.step(
                    heads[n], head_states[n], gradient[1]
                )
        mean = jax.tree.map(lambda g: g / len(scheduled), total)
        adapters, adapter_state = adapter_optimizer.step(state.adapters, adapter_state, mean[0])
        if not personal:
            head, head_states = head_optimizer.step(heads[0], head_states, mean[1])
            heads = [head] * num_devices
    else:
        # SFT (3)–(8): everyone on a copy, then the mean of the copies with weights |D_n|; or one
        # after another on the same weights.
        common, in_turn = (state.adapters, heads[0]), scheme.order == "sequential"
        samples = sum(int(world.sizes[n]) for n in scheduled)
        total = jax.tree.map(np.zeros_like, (state.adapters, heads[0]))
        for n in scheduled:
            copy, head = common[0], heads[n] if personal else common[1]
            copy_state = adapter_optimizer.init(copy)
            head_state = head_states[n] if personal else head_optimizer.init(head)
            losses_n = []
            for k in range(scheme.local_steps):
                loss, (of_copy, of_head) = gradients(n, k, copy, head)
                copy, copy_state = adapter_optimizer.step(copy, copy_state, of_copy)
                head, head_state = head_optimizer.step(head, head_state, of_head)
                losses_n.append(float(loss))
            losses[n] = np.mean(losses_n)
            if scheme.upload_codec is not None:
                key_upload = jax.random.fold_in(jax.random.fold_in(key, n), 5)
                owed = residuals[n] if scheme.error_feedback else np.float32(0)
                (copy, head), owed, upload_bits[n] = over_the_upload(
                    key_upload, common, (copy, head), owed, scheme, params
                )
                if scheme.error_feedback:
                    residuals[n] = owed
            share = np.float32(int(world.sizes[n]) / samples)
            total = jax.tree.map(lambda a, b, s=share: a + s * b, total, (copy, head))
            if in_turn:
                common = total = (copy, head)
            if personal:
                heads[n], head_states[n] = head, head_state
        adapters = total[0]
        if not personal:
            heads = [total[1]] * num_devices
    return ReferenceRound(
        adapters,
        heads,
        float(np.mean(losses[mask])),
        losses,
        adapter_state,
        head_states,
        coded_bits,
        upload_bits,
        residuals,
    )
