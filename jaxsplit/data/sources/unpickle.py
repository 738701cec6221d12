"""Pickles of plain values and NumPy arrays, read without running what they ask for."""

import io
import pickle
from typing import Any

import numpy as np


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 pickles bytes for Python 2; of the many encodings, only this one."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the encoding {encoding!r}")
    return text.encode("latin1")


_reconstruct = np.zeros(0).__reduce__()[0]  # the function that every pickled array names

_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, and pickles are never executed here"
            ) from None


def read_pickle(raw: bytes, file: str) -> Any:
    """Read a pickle of dicts, lists, numbers, strings (as bytes) and arrays.

    A pickle is a program. Here it can name NumPy arrays and nothing else.

    Args:
      raw: its bytes.
      file: its name, for the message.

    Returns:
      The value; strings of Python 2 as bytes.

    Raises:
      ValueError: it asks for anything else, or is broken.

    Example:
      >>> read_pickle(pickle.dumps({"labels": [1, 2]}), "batch")
      {'labels': [1, 2]}
      >>> read_pickle(pickle.dumps(print), "batch")
      Traceback (most recent call last):
      ValueError: batch: it asks for builtins.print, and pickles are never executed here: get ...
    """
    try:
        return _Unpickler(io.BytesIO(raw), encoding="bytes").load()
    except Exception as error:  # a broken pickle can raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{file}: {reason}: get the file again from its publisher") from error
