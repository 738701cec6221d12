"""Mini-batches drawn by index inside the jitted round."""

import jax
import jax.numpy as jnp


def draw_batch(key: jax.Array, indices: jax.Array, size: jax.Array, batch_size: int) -> jax.Array:
    """Draw a mini-batch of one device, without replacement as far as its samples reach.

    A device with fewer samples than the batch repeats them in the shuffled order.

    Args:
      key: PRNG key of this device and round.
      indices: the device's sample indices, shape [M_max].
      size: how many of them count, scalar int32, >= 1.
      batch_size: B, static.

    Returns:
      Sample indices, shape [B] int32.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> batch = draw_batch(jax.random.key(0), jnp.arange(10, 20), jnp.int32(5), 4)
      >>> len(set(batch.tolist())), max(batch.tolist()) < 15
      (4, True)
    """
    position = jnp.arange(indices.shape[-1])
    score = jnp.where(position < size, jax.random.uniform(key, indices.shape), jnp.inf)
    shuffled = jnp.argsort(score)  # padding last
    return indices[shuffled[jnp.arange(batch_size) % size]]
