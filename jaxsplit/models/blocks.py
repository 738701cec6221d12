"""The blocks of a backbone as one stack: a block is compiled once, whatever their number."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

STACK = "blocks"  # the entry of a collection that holds all blocks, leaves [L, ...]
_BLOCK_NAME = re.compile(r"blocks_(\d+)")


def stack_blocks(weights: Any) -> Any:
    """Put the weights of all blocks on top of each other.

    Args:
      weights: a collection of a backbone, frozen weights or adapters, with an entry `blocks_{i}`
        per block. Arrays of NumPy are stacked on the host, others on the accelerator. One that is
        stacked already is returned as it is.

    Returns:
      The same with one entry `blocks`, leaves [L, ...]; `by_block` undoes it.

    Example:
      >>> stack_blocks({f"blocks_{i}": {"bias": np.full(2, i)} for i in range(3)})["blocks"]["bias"]
      array([[0, 0],
             [1, 1],
             [2, 2]])
    """
    names = {int(match[1]): name for name in weights if (match := _BLOCK_NAME.fullmatch(name))}
    if not names:
        return weights
    rest = {name: part for name, part in weights.items() if name not in names.values()}
    return rest | {STACK: jax.tree.map(_stacked, *(weights[names[i]] for i in sorted(names)))}


def by_block(weights: Any) -> Any:
    """Give each block an entry of its own, `blocks_{i}`, as in files and in PEFT.

    Args:
      weights: a collection of a backbone, stacked, or by block already.

    Returns:
      The same by block; what was stacked is copied.

    Example:
      >>> sorted(by_block({"blocks": {"bias": jnp.zeros((2, 8))}, "norm": {"bias": jnp.ones(8)}}))
      ['blocks_0', 'blocks_1', 'norm']
    """
    rest = {name: part for name, part in weights.items() if name != STACK}
    stack = weights.get(STACK, {})
    return rest | {
        f"blocks_{i}": jax.tree.map(lambda leaf, i=i: leaf[i], stack)
        for i in range(num_stacked(weights))
    }


def num_stacked(weights: Any) -> int:
    """Blocks in the stack of a collection; 0 where it has none.

    Example:
      >>> num_stacked({"blocks": {"bias": jnp.zeros((2, 8))}})
      2
    """
    leaves = jax.tree.leaves(weights.get(STACK, ()))
    return leaves[0].shape[0] if leaves else 0


class Row(NamedTuple):
    """A frozen array of one block, read out of the stack where it is used.

    Functions that keep a `Row` for the way back keep no copy of the block's weights.
    """

    stack: jax.Array  # [L, ...]
    at: ArrayLike  # index of the block

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.stack.shape[1:]

    def read(self) -> jax.Array:
        """The array."""
        return lax.dynamic_index_in_dim(self.stack, self.at, keepdims=False)


class Stack(NamedTuple):
    """Weights of consecutive blocks: of a whole backbone, or of one half of it."""

    blocks: Any  # leaves [blocks, ...]
    first: int = 0  # index of the block that comes first

    def copied(self, start: int, stop: int) -> Any:
        """Leaves of a range of blocks, by their indices in the backbone."""
        rows = slice(start - self.first, stop - self.first)
        return jax.tree.map(lambda leaf: leaf[rows], self.blocks)

    def rows(self, index: ArrayLike) -> Any:
        """Weights of one block, each a `Row`; its index may be traced."""
        return jax.tree.map(lambda leaf: Row(leaf, index - self.first), self.blocks)


def scan_blocks(
    apply: Callable[[Any, Any, jax.Array, jax.Array], jax.Array],
    frozen: Stack,
    trained: Stack,
    tokens: jax.Array,
    start: int,
    stop: int,
) -> jax.Array:
    """Run blocks `start` to `stop` (exclusive), one compiled body for all of them.

    Args:
      apply: `(frozen weights of a block, its trained ones, tokens, its index) -> tokens`.
      frozen: read by index: a range of it is never copied. No gradient passes to it.
      trained: what a gradient may be asked of.
      tokens: [B, S, D].
      start: the first block.
      stop: behind the last block.

    Returns:
      Tokens [B, S, D].
    """
    if start >= stop:
        return tokens

    def body(tokens: jax.Array, of_block: tuple[jax.Array, Any]) -> tuple[jax.Array, None]:
        index, own = of_block
        return apply(frozen.rows(index), own, tokens, index), None

    indices = jnp.arange(start, stop, dtype=jnp.int32)
    return lax.scan(body, tokens, (indices, trained.copied(start, stop)))[0]


def _stacked(*leaves: Any) -> Any:
    on_host = all(isinstance(leaf, np.ndarray) for leaf in leaves)
    return (np if on_host else jnp).stack(leaves)
