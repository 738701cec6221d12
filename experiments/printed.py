"""Numbers that a paper prints, beside what was measured."""

import numpy as np

from jaxsplit.results import Interval

from .figure import Agrees

TOLERANCE = 0.1  # of a printed number, within which another is the same
POINTS = 1.0  # of a printed percentage, likewise


def counted(value: float) -> Interval:
    """A number that no draw changes.

    Args:
      value: the number.

    Returns:
      An interval without width.
    """
    return Interval(float(value), float(value), float(value))


def near(measured: Interval, printed: float, tolerance: float | None = None) -> Agrees:
    """Whether a measured number is the printed one.

    Args:
      measured: a mean with its 95 % interval, or a count.
      printed: the paper's number.
      tolerance: how far off is the same, in the number's unit; `TOLERANCE` of it by default.

    Returns:
      Yes where the whole interval is within the tolerance, no where none of it is; undecided
      else, and for one seed.
    """
    if np.isnan(measured.low):
        return "undecided"
    tolerance = TOLERANCE * abs(printed) if tolerance is None else tolerance
    low, high = printed - tolerance, printed + tolerance
    if low <= measured.low and measured.high <= high:
        return "yes"
    return "no" if measured.high < low or measured.low > high else "undecided"


def with_ends(interval: Interval, digits: int = 1) -> str:
    """A number with its interval, where it has one.

    Args:
      interval: a mean with its 95 % interval, or a count.
      digits: after the point.

    Returns:
      Text.
    """
    mean, low, high = (f"{value:,.{digits}f}" for value in interval)
    has_width = np.isfinite(interval.low) and interval.high > interval.low
    return f"{mean} [{low}, {high}]" if has_width else mean
