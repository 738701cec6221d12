"""What a device uploads at the end of a round: one vector, through a codec with error feedback."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxsplit.costs import wide_sum
from jaxsplit.federated.halves import TrainedHalves
from jaxsplit.federated.scheme import Scheme
from jaxsplit.models import Halves, join_weights

_MAX_ELEMENTS = (2**31 - 1) // 33  # of a row: a float and a bit for each still count in int32


class UploadError(ValueError):
    """An upload that no codec takes: what about it, and what to do."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"upload_codec: {problem}; choose {fix}")
        self.problem, self.fix = problem, fix


class Change(NamedTuple):
    """What a round changed on one device, or the part of it that goes up."""

    adapters: Any  # ΔW_n − ΔW, or that of all weights
    head: Any  # θ_n − θ


def uploaded(whole: Change, scheme: Scheme) -> Change:
    """The part of what a device trains that it sends to the server once per round.

    Args:
      whole: adapters, or all weights, and the head; or their change.
      scheme: the choices.

    Returns:
      The device's half of the adapters, all of them without a cut, and a shared head if it is on
      the device; () in place of another head.
    """
    adapters = whole.adapters
    if scheme.cut is not None:
        adapters = TrainedHalves(scheme, None).divide(adapters).device
    goes_up = scheme.heads == "shared" and scheme.head_side == "device"
    return Change(adapters, whole.head if goes_up else ())


def as_vector(tree: Any) -> jax.Array:
    """All leaves in a row.

    Args:
      tree: of real arrays.

    Returns:
      float32 [P].
    """
    return ravel_pytree(jax.tree.map(_float32, tree))[0]


def init_residuals(adapters: Any, head: Any, scheme: Scheme, num_devices: int) -> Any:
    """What uploads have lost before round 0: nothing.

    Args:
      adapters: ΔW, or all weights.
      head: one.
      scheme: the choices.
      num_devices: N.

    Returns:
      Zeros, float32 [N, P]; () without error feedback.

    Raises:
      UploadError: see `check_upload`.
    """
    length = row_length(Change(adapters, head), scheme)
    check_upload(length, scheme)
    return jnp.zeros((num_devices, length), jnp.float32) if scheme.error_feedback else ()


def row_length(whole: Change, scheme: Scheme) -> int:
    """Values that a device uploads once per round, one row for the upload codec.

    Args:
      whole: adapters, or all weights, and the head (shapes suffice).
      scheme: the choices.

    Returns:
      P.
    """
    return sum(leaf.size for leaf in jax.tree.leaves(uploaded(whole, scheme)))


def check_upload(length: int, scheme: Scheme) -> None:
    """Make sure that the upload codec, if there is one, takes what a device uploads.

    Args:
      length: P.
      scheme: the choices.

    Raises:
      UploadError: it is nothing, or more than 65,075,262 values, whose bits are too many for an
        int32.
    """
    if scheme.upload_codec is None:
        return
    if length == 0:
        raise UploadError(
            f"devices upload nothing with cut={scheme.cut}",
            "a cut with adapters below it, or no upload codec",
        )
    if length > _MAX_ELEMENTS:
        raise UploadError(
            f"a device uploads {length:,} values, and a codec takes {_MAX_ELEMENTS:,} at most",
            "adapters instead of all weights, fewer or smaller ones, or no upload codec",
        )


def upload(
    key: jax.Array, change: Change, residual: Any, scheme: Scheme, params: Any
) -> tuple[Change, Any, jax.Array]:
    r"""Send what a device changed in a round, and keep what the codec loses of it.

    With the change $\Delta_n$ of what device n uploads, as one vector, and its residual $e_n$,
    zero at first,

    $$c_n = C(\Delta_n + e_n), \qquad e_n \leftarrow \Delta_n + e_n - c_n, \qquad
    W \leftarrow W + \sum_n w_n c_n,$$

    where $w_n$ are the shares of the round's scheduled set: error feedback (Karimireddy et al.'s
    EF-SGD) after local steps (Basu et al.). Devices that rest keep their $e_n$, so that at any
    time $\sum c_n = \sum \Delta_n - e_n$: nothing is lost, some of it is late. Without error
    feedback $e_n = 0$. The server's half is not sent; it is summed as it is.

    Args:
      key: PRNG key of the codec.
      change: of everything that the device's round has moved.
      residual: e_n, float32 [P]; () without error feedback.
      scheme: the choices; the codec sees the vector as one row.
      params: numbers of `scheme.upload_codec`.

    Returns:
      `(the change as it arrives, e_n after it, exact bits int32 [2])`; without an upload codec the
      change as it is, and no bits.

    Example:
      >>> from jaxsplit.compression import CodecParams, top_k
      >>> from jaxsplit.federated import fl_lora
      >>> from jaxsplit.models import ViT
      >>> model = ViT(patch_size=2, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
      ...             intermediate_size=64)
      >>> scheme = fl_lora(model, 5, upload_codec=top_k(), error_feedback=True)
      >>> change = Change({"blocks_0": jnp.array([1.0, -3.0, 0.5])}, {"bias": jnp.array([2.0])})
      >>> key, half = jax.random.key(0), CodecParams(ratio=0.5)
      >>> arrived, owed, bits = upload(key, change, jnp.zeros(4), scheme, half)
      >>> arrived.adapters["blocks_0"].tolist(), arrived.head["bias"].tolist(), owed.tolist()
      ([0.0, -3.0, 0.0], [2.0], [1.0, 0.0, 0.5, 0.0])

    References:
      *Error feedback fixes SignSGD and other gradient compression schemes*, arXiv:1901.09847.
      *Qsparse-local-SGD: distributed SGD with quantization, sparsification and local
      computations*, arXiv:1906.02367.
    """
    codec = scheme.upload_codec
    if codec is None:
        return change, residual, jnp.zeros(2, jnp.int32)
    # 1. What goes up as one vector, and what earlier rounds owe.
    part = uploaded(change, scheme)
    vector, as_tree = ravel_pytree(jax.tree.map(_float32, part))
    wanted = vector + residual if scheme.error_feedback else vector
    # 2. Over the link, in one row.
    rows, bits = codec.transmit(key, wanted[None], params)
    arrived = rows[0]
    # 3. What did not arrive waits for the device's next round.
    residual = wanted - arrived if scheme.error_feedback else ()
    # 4. It takes the place of what was sent; the rest of the change is on the server already.
    part = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), as_tree(arrived), part)
    head = change.head if part.head == () else part.head
    adapters = part.adapters
    if scheme.cut is not None:
        on_server = TrainedHalves(scheme, None).divide(change.adapters).server
        adapters = join_weights(Halves(adapters, on_server))
    return Change(adapters, head), residual, wide_sum(bits)


def _float32(leaf: jax.Array) -> jax.Array:
    return leaf.astype(jnp.float32)
