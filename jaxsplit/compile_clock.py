"""Compile time apart from run time."""

import time

import jax


class CompileClock:
    """Measure the wall time that JAX spends on tracing, lowering and compiling in a block.

    JAX reports the duration of each such phase when it ends. Phases nest (a traced function
    traces others), so the clock takes the union of their intervals.

    Example:
      >>> with CompileClock() as clock:
      ...     _ = jax.jit(lambda x: 2 * x)(1.0)
      >>> clock.seconds > 0
      True
    """

    def __init__(self) -> None:
        self._intervals: list[tuple[float, float]] = []

    def _on_event(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event.startswith("/jax/core/compile/"):
            now = time.perf_counter()
            self._intervals.append((now - duration_secs, now))

    def __enter__(self) -> "CompileClock":
        """Start listening."""
        jax.monitoring.register_event_duration_secs_listener(self._on_event)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        jax.monitoring.unregister_event_duration_listener(self._on_event)

    @property
    def seconds(self) -> float:
        """Seconds spent so far."""
        total, end = 0.0, 0.0
        for start, stop in sorted(self._intervals):
            total += max(0.0, stop - max(start, end))
            end = max(end, stop)
        return total
