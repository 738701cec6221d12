"""Products with frozen weights and low-rank adapters, several layers of one input at once."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from jaxsplit.models.blocks import Row


class Layer(NamedTuple):
    """The weights of one dense layer, laid out as PyTorch does."""

    weight: jax.Array | Row  # W [D_out, D_in]
    bias: jax.Array | None  # [D_out]
    a: jax.Array | None = None  # A [r, D_in]; None for a layer without adapter
    b: jax.Array | None = None  # B [D_out, r]


def times(x: jax.Array, weight: jax.Array) -> jax.Array:
    """x·Wᵀ over the last axes of both; on a CPU XLA multiplies this way round fastest."""
    return lax.dot_general(x, weight, (((x.ndim - 1,), (weight.ndim - 1,)), ((), ())))


def merged_product(x: jax.Array, layers: Sequence[Layer], scale: float) -> jax.Array:
    r"""Apply layers to one input through $W + sBA$, one product for all of them.

    $y_i = x (W_i + s B_i A_i)^\top$: an adapter that all devices share costs no pass over the
    tokens on the way forward. Backward, the gradients of A and B are low-rank products, the
    gradient of W is formed only where it is asked for.

    Args:
      x: [..., D_in].
      layers: their weights; biases are added outside.
      scale: s = α/r.

    Returns:
      The outputs y_i side by side, [..., ΣD_out].
    """
    return _merged(scale, x, tuple(layers))


def separate_product(
    x: jax.Array, adapter_inputs: Sequence[jax.Array], layers: Sequence[Layer], scale: float
) -> jax.Array:
    r"""Apply layers to one input with the adapters beside the weights.

    $y_i = x W_i^\top + s (x_i A_i^\top) B_i^\top$: what adapters of single devices need (no weight
    is copied per device), dropout on the adapters' input, and dtypes in which a small update
    would be lost in the sum $W + sBA$.

    Args:
      x: [..., D_in].
      adapter_inputs: x_i, what the adapter of each layer sees: x, or x after dropout.
      layers: their weights; biases are added outside.
      scale: s = α/r.

    Returns:
      The outputs y_i side by side, [..., ΣD_out].
    """
    weights = tuple(layer.weight for layer in layers)
    frozen = all(isinstance(weight, Row) for weight in weights)
    y = (_times_rows if frozen else _times_weights)(x, weights)
    pairs = zip(adapter_inputs, layers, strict=True)
    adapted = [(z, layer.a) for z, layer in pairs if layer.a is not None]
    if not adapted:
        return y
    a, b = _side_by_side(layers)
    if all(z is x for z, _ in adapted):
        low = times(x, a)
    else:
        low = jnp.concatenate([times(z, of_layer) for z, of_layer in adapted], axis=-1)
    return y + scale * times(low, b)


def _times_weights(x: jax.Array, weights: Sequence[jax.Array | Row]) -> jax.Array:
    """One product with all weights."""
    return times(x, joined([read_weight(weight, x.dtype) for weight in weights]))


@jax.custom_vjp
def _times_rows(x: jax.Array, weights: tuple[Row, ...]) -> jax.Array:
    """The same with frozen weights, which are read again on the way back instead of kept."""
    return _times_weights(x, weights)


def _times_rows_forward(
    x: jax.Array, weights: tuple[Row, ...]
) -> tuple[jax.Array, tuple[Row, ...]]:
    return _times_weights(x, weights), weights


def _times_rows_backward(weights: tuple[Row, ...], gradient: jax.Array) -> tuple[jax.Array, None]:
    return gradient @ joined([read_weight(weight, gradient.dtype) for weight in weights]), None


_times_rows.defvjp(_times_rows_forward, _times_rows_backward)


def read_weight(weight: jax.Array | Row, dtype: DTypeLike) -> jax.Array:
    """A weight in the computation's dtype, whether it is read out of a stack or there already."""
    return (weight.read() if isinstance(weight, Row) else weight).astype(dtype)


def joined(parts: Sequence[jax.Array]) -> jax.Array:
    """Parts on top of each other; one alone is not copied."""
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _merged(scale: float, x: jax.Array, layers: tuple[Layer, ...]) -> jax.Array:
    return _merged_forward(scale, x, layers)[0]


def _merged_forward(
    scale: float, x: jax.Array, layers: tuple[Layer, ...]
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, tuple[Layer, ...]]]:
    weight = joined([read_weight(layer.weight, x.dtype) for layer in layers])
    if any(layer.a is not None for layer in layers):
        a, b = _side_by_side(layers)
        weight = weight + scale * (b @ a)
    return times(x, weight), (x, weight, layers)


def _merged_backward(
    scale: float,
    residuals: tuple[jax.Array, jax.Array, tuple[Layer, ...]],
    gradient: jax.Array,
) -> tuple[jax.Array, tuple[Layer, ...]]:
    x, weight, layers = residuals
    rows, row_gradients = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, weight.shape[0])
    of_weight = row_gradients.T @ rows  # dead code unless a W is trained
    of_layers, out, low = [], 0, 0
    if any(layer.a is not None for layer in layers):
        # The gradients of all A and B in four thin products; those of B are diagonal blocks.
        a, b = _side_by_side(layers)
        of_a, of_b = (row_gradients @ b).T @ rows, times(rows, a).T @ row_gradients
    for layer in layers:
        width = layer.weight.shape[0]
        is_frozen = isinstance(layer.weight, Row)
        of_layer = Layer(None if is_frozen else of_weight[out : out + width], None)  # type: ignore[arg-type]
        if layer.a is not None:
            rank = layer.a.shape[0]
            of_layer = of_layer._replace(
                a=scale * of_a[low : low + rank],
                b=scale * of_b[low : low + rank, out : out + width].T,
            )
            low += rank
        of_layers.append(of_layer)
        out += width
    return gradient @ weight, tuple(of_layers)


def _side_by_side(layers: Sequence[Layer]) -> tuple[jax.Array, jax.Array]:
    """All A stacked, [Σr, D_in], and all B as blocks on a diagonal, [ΣD_out, Σr]."""
    factors = [layer.a for layer in layers if layer.a is not None]
    rank, dtype = sum(a.shape[0] for a in factors), factors[0].dtype
    blocks, low = [], 0
    for layer in layers:
        if layer.b is None:
            blocks.append(jnp.zeros((layer.weight.shape[0], rank), dtype))
        else:
            high = low + layer.b.shape[1]
            blocks.append(jnp.pad(layer.b, ((0, 0), (low, rank - high))))
            low = high
    return joined(factors), joined(blocks)


_merged.defvjp(_merged_forward, _merged_backward)
