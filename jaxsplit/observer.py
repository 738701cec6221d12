"""What a run tells while it goes on: the contract of progress bars, logs and trackers."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxsplit.federated import LearningState


class Observer:
    """Is told what happens in a run; each method may be left as it is.

    Nothing of it is called from inside a compiled program: rounds are told at the end of the chunk
    that they are scanned in.

    Example:
      >>> class Printer(Observer):
      ...     def evaluated(self, seed, rounds, metrics):
      ...         print(f"seed {seed}, {rounds} rounds: {metrics['accuracy']:.1%}")
      >>> Printer().evaluated(0, 10, {"accuracy": 0.5})
      seed 0, 10 rounds: 50.0%
    """

    def noted(self, message: str) -> None:
        """Something that a reader of the log wants to know, such as how seeds are run."""

    def resumed(self, seed: int, rounds: int, samples: int) -> None:
        """A seed goes on from a checkpoint after `rounds` rounds, which `samples` stand for."""

    def encoded(self, samples: int) -> None:
        """So many more samples have gone through the backbone, see `planned_samples`."""

    def trained(self, seed: int, first_round: int, metrics: Mapping[str, np.ndarray]) -> None:
        """Some rounds are done; each metric has shape [R], from `first_round` on."""

    def evaluated(self, seed: int, rounds: int, metrics: Mapping[str, float]) -> None:
        """The test set has been evaluated after `rounds` rounds."""

    def finished(self, seed: int, state: LearningState) -> None:
        """A seed has come to its end, with these adapters and heads (on the host)."""


class Observers(Observer):
    """Several that are told the same.

    Args:
      members: in the order in which they are told.
    """

    def __init__(self, members: Sequence[Observer]) -> None:
        self._members = tuple(members)

    def noted(self, message: str) -> None:
        """See `Observer`."""
        for member in self._members:
            member.noted(message)

    def resumed(self, seed: int, rounds: int, samples: int) -> None:
        """See `Observer`."""
        for member in self._members:
            member.resumed(seed, rounds, samples)

    def encoded(self, samples: int) -> None:
        """See `Observer`."""
        for member in self._members:
            member.encoded(samples)

    def trained(self, seed: int, first_round: int, metrics: Mapping[str, np.ndarray]) -> None:
        """See `Observer`."""
        for member in self._members:
            member.trained(seed, first_round, metrics)

    def evaluated(self, seed: int, rounds: int, metrics: Mapping[str, float]) -> None:
        """See `Observer`."""
        for member in self._members:
            member.evaluated(seed, rounds, metrics)

    def finished(self, seed: int, state: LearningState) -> None:
        """See `Observer`."""
        for member in self._members:
            member.finished(seed, state)
