"""A channel that replays gains recorded in a file."""

import functools
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jax.typing import ArrayLike

from jaxsplit.wireless.base import ChannelModel

Start = Literal["first", "random"]
DIMS = ("round", "device")
CSV_HEADERS = {"round,device,gain_db": "dB", "round,device,gain_linear": "1"}


class TraceParams(NamedTuple):
    """Numbers of a replayed channel."""

    offset_db: ArrayLike = 0.0  # added to every recorded gain: an antenna, another power


class TraceState(NamedTuple):
    """Where the replay is."""

    row: jax.Array  # [] int32, the next row of the file


def read_trace(path: str | Path) -> np.ndarray:
    r"""Read and check a recorded channel.

    NetCDF (`.nc`): a variable `gain` with the dimensions `round` and `device` and the attribute
    `units`, "1" (linear power gain) or "dB". CSV (`.csv`): the header `round,device,gain_db` or
    `round,device,gain_linear`, one line per round and device, in any order.

    Args:
      path: the file.

    Returns:
      The linear power gains, shape [rounds, devices], float32.

    Raises:
      ValueError: for a file of another form, or with gaps, NaN, gains that are not positive, or
        rounds that do not follow one another.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "trace.csv"
      >>> lines = ["round,device,gain_db", "0,0,-90", "0,1,-80", "1,0,-70", "1,1,-60"]
      >>> _ = path.write_text("\n".join(lines))
      >>> read_trace(path)
      array([[1.e-09, 1.e-08],
             [1.e-07, 1.e-06]], dtype=float32)
    """
    path = Path(path)
    if path.suffix == ".nc":
        recorded, unit, rounds = _read_netcdf(path)
    elif path.suffix == ".csv":
        recorded, unit, rounds = _read_csv(path)
    else:
        raise ValueError(f"{path}: the suffix {path.suffix!r} is unknown: use .nc or .csv")
    if not recorded.size:
        raise ValueError(f"{path}: shape {recorded.shape} is empty: record at least one gain")
    if not np.issubdtype(rounds.dtype, np.number):
        raise ValueError(f"{path}: rounds are of type {rounds.dtype}: number them 0, 1, 2, …")
    if np.any(np.diff(rounds) != 1):
        step = int(np.flatnonzero(np.diff(rounds) != 1)[0])
        raise ValueError(
            f"{path}: round {rounds[step]:g} is followed by round {rounds[step + 1]:g}: "
            "rounds must be consecutive; sort them and fill the gaps"
        )
    if np.isnan(recorded).any():
        raise ValueError(
            f"{path}: {_first(np.isnan(recorded), rounds)} is NaN or missing: every round needs "
            "a gain of every device"
        )
    with np.errstate(over="ignore", under="ignore"):  # what leaves the range is told below
        gain = (recorded if unit == "1" else 10 ** (recorded / 10)).astype(np.float32)
    wrong = ~((gain > 0) & np.isfinite(gain))
    if wrong.any():
        index = np.unravel_index(np.argmax(wrong), wrong.shape)
        raise ValueError(
            f"{path}: {_first(wrong, rounds)} is {recorded[index]:g} in units of {unit!r}: a "
            "linear gain must be positive and finite in float32; check the values and the unit"
        )
    return gain


def _first(wrong: np.ndarray, rounds: np.ndarray) -> str:
    row, device = np.unravel_index(np.argmax(wrong), wrong.shape)
    return f"the gain of round {rounds[row]:g}, device {device}"


def _read_netcdf(path: Path) -> tuple[np.ndarray, str, np.ndarray]:
    with xr.open_dataset(path, engine="h5netcdf") as file:
        if "gain" not in file:
            raise ValueError(f"{path}: holds {sorted(map(str, file))}: name the variable 'gain'")
        gain = file["gain"].load()
    if set(gain.dims) != set(DIMS):
        raise ValueError(f"{path}: gain has dims {gain.dims}: rename them to {DIMS}")
    unit = gain.attrs.get("units")
    if unit not in ("1", "dB"):
        raise ValueError(
            f"{path}: gain has units={unit!r}: set the attribute to '1' (linear) or 'dB'"
        )
    gain = gain.transpose(*DIMS)
    rounds = gain.coords["round"].values if "round" in gain.coords else np.arange(len(gain))
    return gain.values.astype(np.float64), unit, rounds


def _read_csv(path: Path) -> tuple[np.ndarray, str, np.ndarray]:
    lines = path.read_text(encoding="utf-8-sig").splitlines() or [""]
    header = lines[0].replace(" ", "")
    if header not in CSV_HEADERS:
        allowed = " or ".join(repr(name) for name in CSV_HEADERS)
        raise ValueError(f"{path}: the header is {lines[0]!r}: write {allowed}")
    table = []
    for number, line in enumerate(lines[1:], start=2):
        if line.strip():
            try:
                round_index, device, value = line.split(",")
                table.append((int(round_index), int(device), float(value)))
            except ValueError:
                raise ValueError(
                    f"{path}: line {number} is {line!r}: write two whole numbers and a gain"
                ) from None
    keys = [(row, device) for row, device, _ in table]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(
            f"{path}: round {twice[0]}, device {twice[1]} stands there twice: keep one line"
        )
    rounds, rows = np.unique([row for row, _, _ in table], return_inverse=True)
    devices, columns = np.unique([device for _, device, _ in table], return_inverse=True)
    gain = np.full((len(rounds), len(devices)), np.nan)
    gain[rows, columns] = [value for _, _, value in table]
    return gain, CSV_HEADERS[header], rounds


def trace(path: str | Path, start: Start = "first") -> ChannelModel:
    """Replay recorded gains, round by round, from the start again after the last.

    The file is read and checked here, once, and again if it has changed; see `read_trace` for its
    form. It must hold as many devices as the network.

    Args:
      path: a NetCDF or CSV file.
      start: "first" begins with the first round in every run, "random" with one that the run's
        key draws. The order of the rounds is kept.

    Returns:
      A `ChannelModel` with `TraceParams`.

    Raises:
      ValueError: for an unknown `start` or a file that `read_trace` rejects; in `init`, for a
        number of devices other than the file's.

    Example:
      >>> import jax, tempfile, xarray
      >>> path = Path(tempfile.mkdtemp()) / "trace.nc"
      >>> gain = xarray.DataArray([[-90.0, -80.0]], dims=("round", "device"), name="gain")
      >>> gain.assign_attrs(units="dB").to_dataset().to_netcdf(path, engine="h5netcdf")
      >>> channel = trace(path)
      >>> state = channel.init(jax.random.key(0), 2, channel.params)
      >>> channel.sample(jax.random.key(1), state, channel.params)[1]
      Array([1.e-09, 1.e-08], dtype=float32)
    """
    if start not in get_args(Start):
        raise ValueError(f"start={start!r} is unknown: choose one of {get_args(Start)}")
    path = Path(path).resolve()
    status = path.stat()
    return _trace(path, start, (status.st_mtime_ns, status.st_size))


@functools.cache
def _trace(path: Path, start: Start, version: tuple[int, int]) -> ChannelModel:
    """One model per content of a file: equal choices must be the same object."""
    del version
    # Which file is a choice, not a number: closed over, since defaults must hash.
    recorded = read_trace(path)
    rounds, devices = recorded.shape

    def init(key: jax.Array, num_devices: int, params: TraceParams) -> TraceState:
        del params
        if num_devices != devices:
            raise ValueError(
                f"num_devices={num_devices}, but {path} holds {devices}: simulate {devices}"
            )
        first = jax.random.randint(key, (), 0, rounds) if start == "random" else jnp.int32(0)
        return TraceState(first)

    def sample(
        key: jax.Array, state: TraceState, params: TraceParams
    ) -> tuple[TraceState, jax.Array]:
        del key
        gain = jnp.asarray(recorded)[state.row] * 10 ** (jnp.asarray(params.offset_db) / 10)
        return TraceState((state.row + 1) % rounds), gain

    return ChannelModel(init, sample, TraceParams())
