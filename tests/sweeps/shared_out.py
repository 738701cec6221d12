"""Run by test_shared_out.py in processes of its own: the same sweep, shared out in several ways.

python shared_out.py FILE DEVICES [OUT [COORDINATOR PROCESSES INDEX]]
"""

import sys

import jax


def main():
    path, devices, *rest = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", int(devices))
    if len(rest) > 1:
        jax.distributed.initialize(rest[1], int(rest[2]), int(rest[3]))

    from jaxsplit import Network, sweep
    from jaxsplit.scheduling import greedy, lyapunov
    from jaxsplit.wireless import umi

    assert len(jax.local_devices()) == int(devices)
    result = sweep(
        Network(7, umi(), greedy()),
        {
            "scheduler": {"bound": lyapunov(objective="bound"), "greedy": greedy()},
            "delay_budget": [10e-9, 25e-9, 60e-9],
        },
        seeds=13,
        num_rounds=20,
        warmup_rounds=3,
        keep_rounds=True,
        block_size=8,
        out=rest[0] if rest else None,
    )
    result.to_netcdf(path, engine="h5netcdf")


main()
