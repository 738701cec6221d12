"""`pytest --margin-report FILE`: how much of its tolerance each comparison of floats uses up.

FILE gets a line per comparison (`numpy.testing.assert_allclose`, and with it chex's): the largest
error over what was allowed, and the largest error in roundings (ε of the narrower dtype) of the
largest value. The terminal shows the closest ones: a share above a half is a test that another
machine, which adds in another order, may fail.
"""

import contextlib
import csv
import sys
from pathlib import Path

import numpy as np
import pytest

CLOSEST = 15


def pytest_addoption(parser):
    parser.addoption(
        "--margin-report", metavar="FILE", type=Path, help="used share of each tolerance"
    )


def pytest_configure(config):
    if config.getoption("margin_report"):
        config.pluginmanager.register(MarginReport(config), "margin-report")


def used(actual, desired, rtol, atol):
    """Largest error over the allowed one; and over the rounding of the largest value."""
    dtypes = [np.asarray(x).dtype for x in (actual, desired)]
    actual, desired = (np.asarray(x, np.float64) for x in (actual, desired))
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.nan_to_num(np.abs(actual - desired), nan=0.0, posinf=0.0)
        allowed = atol + rtol * np.abs(desired)
        share = np.where(error == 0, 0.0, error / allowed)
    eps = max((np.finfo(t).eps for t in dtypes if t.kind == "f"), default=np.finfo(float).eps)
    largest = np.abs(np.nan_to_num(desired, posinf=0, neginf=0)).max(initial=0)
    return float(share.max(initial=0)), float(error.max(initial=0) / (eps * largest or 1))


class MarginReport:
    def __init__(self, config):
        self.path = config.getoption("margin_report")
        self.is_worker = hasattr(config, "workerinput")
        self.of_test, self.rows = [], []
        self.plain = np.testing.assert_allclose
        np.testing.assert_allclose = self.compare

    def compare(self, actual, desired, rtol=1e-7, atol=0, *args, **kwargs):
        __tracebackhide__ = True
        frame = sys._getframe(1)
        while frame and "/tests/" not in frame.f_code.co_filename:
            frame = frame.f_back
        line = frame.f_lineno if frame else 0
        with contextlib.suppress(TypeError, ValueError):  # no numbers, shapes that do not fit
            self.of_test.append((line, *used(actual, desired, rtol, atol)))
        return self.plain(actual, desired, rtol, atol, *args, **kwargs)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item):
        self.of_test = []
        try:
            return (yield)
        finally:
            worst = {}
            for line, *measured in self.of_test:
                worst[line] = max(worst.get(line, [0, 0]), measured)
            item.user_properties.append(("margins", worst))

    def pytest_runtest_logreport(self, report):
        for line, measured in dict(report.user_properties).get("margins", {}).items():
            if report.when == "call":
                self.rows.append((report.nodeid, line, *measured))

    def pytest_terminal_summary(self, terminalreporter):
        if self.is_worker:
            return
        self.rows.sort(key=lambda row: -row[2])
        with self.path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("test", "line", "share", "roundings"))
            writer.writerows((*row[:2], f"{row[2]:.3g}", f"{row[3]:.3g}") for row in self.rows)
        terminalreporter.section("closest comparisons")
        for test, line, share, roundings in self.rows[:CLOSEST]:
            terminalreporter.line(
                f"{share:8.2f} of the tolerance, {roundings:9.3g} ε  {test}:{line}"
            )
