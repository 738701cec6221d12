"""Several seeds in one program against one after the other.

    python benchmarks/seeds_at_once.py [--seeds 4] [--rounds 40] [--repeats 3]

The quickstart's round under All-in and under a policy whose sets change from seed to seed: at
once, a round lasts as long as that of the seed with most devices. Prints the ratio of wall times
(compilation apart; the least of some repeats) and adds it to
benchmarks/results/seeds_at_once.json under the device's name.
"""

import argparse
import json
from pathlib import Path

import jax

import jaxsplit
from jaxsplit.commands.quickstart import FINE_TUNING_CLASSES, QuickstartConfig, foundation_model
from jaxsplit.data import digits


def seconds(config: QuickstartConfig, policy: str, at_once: int) -> float:
    """Wall time of the rounds of all seeds, without compilation."""
    result = jaxsplit.run(
        range(config.seeds),
        config.network(policy),
        config.scheme(),
        foundation_model(),
        digits(FINE_TUNING_CLASSES),
        num_rounds=config.rounds,
        network_params=config.network_params(policy),
        learning_params=config.learning_params(),
        evaluate_every=config.rounds,
        seeds_at_once=at_once,
    )
    return float(result.run_s.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    config = QuickstartConfig(seeds=options.seeds, rounds=options.rounds)
    found = {}
    for policy in ("all_in", "lyapunov_count"):
        least = {1: float("inf"), options.seeds: float("inf")}
        for _ in range(1 + options.repeats):  # the first compiles
            for at_once in least:
                least[at_once] = min(least[at_once], seconds(config, policy, at_once))
        found[policy] = round(least[1] / least[options.seeds], 3)
        print(
            f"{policy}: {options.seeds} seeds at once are {found[policy]} times as fast as in turn"
        )
    path = Path(__file__).parent / "results" / "seeds_at_once.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    record[jax.devices()[0].device_kind] = {
        "seeds": options.seeds, "rounds": options.rounds, "speedup_over_in_turn": found,
    }  # fmt: skip
    path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
