"""Placements: devices that stand still or walk in a disc."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsplit.wireless.base import Placement
from jaxsplit.wireless.geometry import uniform_disc

# No number, however wrong, may hang a sweep: a device that would pass more waypoints than this
# within one round stays at the last one until the round ends.
MAX_LEGS = 1000


class DiscParams(NamedTuple):
    """Numbers of the disc of devices."""

    radius_m: ArrayLike = 100.0  # R
    centre_m: tuple[float, float] | jax.Array = (0.0, 0.0)  # the server is at (0, 0)


class DiscState(NamedTuple):
    """What stays fixed over a run."""

    position_m: jax.Array  # [N, 2] m


@functools.cache
def static_disc() -> Placement:
    """Devices drawn uniformly over a disc, once per run (FedFT §V-A).

    Returns:
      A `Placement` with `DiscParams`.

    Example:
      >>> import jax
      >>> placement = static_disc()
      >>> placement.init(jax.random.key(0), 20, placement.params).position_m.shape
      (20, 2)
    """

    def init(key: jax.Array, num_devices: int, params: DiscParams) -> DiscState:
        centre_m = jnp.asarray(params.centre_m)
        return DiscState(uniform_disc(key, num_devices, params.radius_m, centre_m))

    def move(key: jax.Array, state: DiscState, params: DiscParams) -> DiscState:
        del key, params
        return state

    return Placement(init, move, DiscParams())


class WaypointParams(NamedTuple):
    """Numbers of the random waypoint walk: pedestrians, by default."""

    radius_m: ArrayLike = 100.0  # R
    centre_m: tuple[float, float] | jax.Array = (0.0, 0.0)  # the server is at (0, 0)
    speed_min_m_per_s: ArrayLike = 0.5  # > 0: at 0 the mean speed decays towards 0 over time
    speed_max_m_per_s: ArrayLike = 1.5
    pause_s: ArrayLike = 10.0  # rest at every waypoint
    round_s: ArrayLike = 2.0  # time that one round takes (FedFT's ViT batch at τ̄: 1.9 s)


class WaypointState(NamedTuple):
    """Where each device is on its way."""

    position_m: jax.Array  # [N, 2] m
    waypoint_m: jax.Array  # [N, 2] m, where it goes
    speed_m_per_s: jax.Array  # [N] on this leg
    pause_s: jax.Array  # [N] s, rest before it sets off


@functools.cache
def waypoint_walk() -> Placement:
    r"""Random waypoint mobility in a disc.

    Each device walks straight to a point drawn uniformly over the disc, at a speed drawn
    uniformly from [v_min, v_max], rests there, and draws the next (Johnson & Maltz 1996). Within
    a round the walk is followed exactly, over as many waypoints as the round has time for.

    Positions start uniform and drift to the walk's own law, which is denser in the centre
    (Bettstetter et al. 2003): let a run warm up for a few times R/v where that matters.

    Returns:
      A `Placement` with `WaypointParams`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> walk = waypoint_walk()
      >>> before = walk.init(jax.random.key(0), 3, walk.params)
      >>> after = walk.move(jax.random.key(1), before, walk.params)
      >>> way = jnp.linalg.norm(after.position_m - before.position_m, axis=-1)
      >>> bool((way <= 1.5 * 2.0 + 1e-4).all())  # speed limit × round
      True
    """

    def draw_leg(key: jax.Array, params: WaypointParams) -> tuple[jax.Array, jax.Array]:
        key_place, key_speed = jax.random.split(key)
        place_m = uniform_disc(key_place, 1, params.radius_m, jnp.asarray(params.centre_m))[0]
        speed = jax.random.uniform(
            key_speed, (), minval=params.speed_min_m_per_s, maxval=params.speed_max_m_per_s
        )
        return place_m, speed

    def init(key: jax.Array, num_devices: int, params: WaypointParams) -> WaypointState:
        key_position, key_leg = jax.random.split(key)
        waypoint_m, speed = jax.vmap(lambda key: draw_leg(key, params))(
            jax.random.split(key_leg, num_devices)
        )
        return WaypointState(
            position_m=uniform_disc(
                key_position, num_devices, params.radius_m, jnp.asarray(params.centre_m)
            ),
            waypoint_m=waypoint_m,
            speed_m_per_s=speed,
            pause_s=jnp.zeros_like(speed),
        )

    def walk(key: jax.Array, start: WaypointState, params: WaypointParams) -> WaypointState:
        """One device through one round."""
        Carry = tuple[jax.Array, jax.Array, WaypointState]

        def has_time(carry: Carry) -> jax.Array:
            left_s, leg, _ = carry
            return (left_s > 0) & (leg < MAX_LEGS)

        def walk_leg(carry: Carry) -> Carry:
            left_s, leg, here = carry
            rest_s = jnp.minimum(here.pause_s, left_s)
            left_s = left_s - rest_s
            gap_m = here.waypoint_m - here.position_m
            distance_m = jnp.linalg.norm(gap_m)
            reach_m = here.speed_m_per_s * left_s
            arrives = reach_m >= distance_m
            share = jnp.where(arrives, 0, reach_m / jnp.where(arrives, 1, distance_m))
            next_m, next_speed = draw_leg(jax.random.fold_in(key, leg), params)
            underway = here._replace(
                position_m=here.position_m + share * gap_m, pause_s=here.pause_s - rest_s
            )
            arrived = WaypointState(
                position_m=here.waypoint_m,
                waypoint_m=next_m,
                speed_m_per_s=next_speed,
                pause_s=jnp.asarray(params.pause_s, here.pause_s.dtype),
            )
            there = jax.tree.map(lambda a, b: jnp.where(arrives, a, b), arrived, underway)
            left_s = jnp.where(arrives, left_s - distance_m / here.speed_m_per_s, 0)
            return left_s, leg + 1, there

        left_s = jnp.asarray(params.round_s, start.pause_s.dtype)
        return jax.lax.while_loop(has_time, walk_leg, (left_s, jnp.int32(0), start))[2]

    @jax.jit  # outside of jit, a bare while_loop is compiled anew in every call
    def move(key: jax.Array, state: WaypointState, params: WaypointParams) -> WaypointState:
        keys = jax.random.split(key, state.pause_s.shape[0])
        return jax.vmap(walk, in_axes=(0, 0, None))(keys, state, params)

    return Placement(init, move, WaypointParams())
