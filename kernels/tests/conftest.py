import gc
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

# Library code must broadcast and convert explicitly: users run with these flags.
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

_MANY_MAPPINGS = 25_000  # of the 65,530 that Linux gives a process by default
_MAPPINGS = Path("/proc/self/maps")


@pytest.fixture(autouse=True, scope="module")
def _few_compiled_programs() -> Iterator[None]:
    """Drop compiled programs in time: each has memory mappings, and XLA dies without any left."""
    yield
    if _MAPPINGS.exists() and _MAPPINGS.read_bytes().count(b"\n") > _MANY_MAPPINGS:
        jax.clear_caches()
        gc.collect()
