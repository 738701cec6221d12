"""`pytest --compile-report FILE`: what each test costs, and how much of it is JAX compiling.

A column per kind of second: CPU time of the process and its children, then JAX's own durations of
tracing, lowering and compiling (a trace inside another counts twice). A fixture is charged to the
test that asked for it first. FILE gets a line per test, the terminal the sums per file.
"""

import csv
import resource
import time
from collections import Counter, defaultdict
from pathlib import Path

import jax
import pytest

EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "trace_s",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower_s",
    "/jax/core/compile/backend_compile_duration": "compile_s",
}
COLUMNS = ("cpu_s", *EVENTS.values(), "programs")


def pytest_addoption(parser):
    parser.addoption(
        "--compile-report", metavar="FILE", type=Path, help="CPU and compile seconds per test"
    )


def pytest_configure(config):
    if config.getoption("compile_report"):
        config.pluginmanager.register(CompileReport(config), "compile-report")


class CompileReport:
    def __init__(self, config):
        self.path = config.getoption("compile_report")
        self.is_worker = hasattr(config, "workerinput")
        self.spent = Counter()  # of this process, so far
        self.rows = []  # of all processes: (test, costs)
        jax.monitoring.register_event_duration_secs_listener(self.hear)

    def hear(self, event, seconds, **_):
        if event in EVENTS:
            self.spent[EVENTS[event]] += seconds
            self.spent["programs"] += event.endswith("backend_compile_duration")

    def now(self):
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = time.process_time() + children.ru_utime + children.ru_stime
        return self.spent | Counter(cpu_s=cpu_s)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item, nextitem):
        item.stash[START] = self.now()
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item):
        try:
            return (yield)
        finally:  # reports carry properties from the workers to the process that prints
            costs = self.now()
            costs.subtract(item.stash[START])
            item.user_properties.append(("costs", [costs[name] for name in COLUMNS]))

    def pytest_runtest_logreport(self, report):
        properties = dict(report.user_properties)
        if report.when == "teardown" and "costs" in properties:
            self.rows.append((report.nodeid, properties["costs"]))

    def pytest_terminal_summary(self, terminalreporter):
        if self.is_worker:
            return
        with self.path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("test", *COLUMNS))
            writer.writerows(
                (test, *(round(cost, 3) for cost in costs)) for test, costs in self.rows
            )
        files = defaultdict(lambda: [0] * len(COLUMNS))
        for test, costs in self.rows:
            for name in (test.split("::")[0], "all"):
                files[name] = [a + b for a, b in zip(files[name], costs, strict=True)]
        terminalreporter.section("compile report")
        terminalreporter.line("".join(f"{name:>11}" for name in COLUMNS) + "  file")
        for name, costs in sorted(files.items(), key=lambda row: -row[1][0]):
            terminalreporter.line("".join(f"{cost:11.1f}" for cost in costs) + f"  {name}")


START = pytest.StashKey()
