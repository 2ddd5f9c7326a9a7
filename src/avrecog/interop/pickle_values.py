"""What pickles of plain values, numpy arrays and torch tensors are made of: each thing checked before it is made."""

import math
import sys
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from avrecog.errors import PickleError

MAX_TIMES = 16  # the size of a file, for what is made from it; real files need up to 8
OBJECT_BYTES = 64  # of an empty list, tuple or dict
MAX_AXES = 8
DTYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


@dataclass
class Budget:
    """Bytes that may still be made: references repeat what is stored once, so a small file could ask for any amount."""

    n_bytes: int

    def spend(self, n_bytes: int) -> None:
        """Take bytes from it.

        Raises:
            PickleError: if fewer are left.
        """
        self.n_bytes -= n_bytes
        if self.n_bytes < 0:
            raise PickleError(f"unfolds to more than {MAX_TIMES} times its size, so it isn't read")


@dataclass(frozen=True)
class Name:
    """What stands for a class or function that a pickle names."""

    name: str


@dataclass
class Dtype:
    """A number format that is being described."""

    dtype: np.dtype


@dataclass(frozen=True)
class Storage:
    """The numbers behind a tensor."""

    values: np.ndarray  # (n,)


def format_value(value: Any) -> str:
    """A value in a message: the name that it is, or its kind."""
    return value.name.replace(" ", ".") if isinstance(value, Name) else f"a {type(value).__name__.strip('_').lower()}"


def expect(fits: bool, what: str) -> None:
    """Refuse what does not fit.

    Raises:
        PickleError: if it is of another kind, or can't be.
    """
    if not fits:
        raise PickleError(f"describes {what} that can't be; it is damaged")


def _are_sizes(values: Any) -> bool:
    return isinstance(values, tuple) and len(values) <= MAX_AXES and all(_is_size(value) for value in values)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < sys.maxsize


def encoded(budget: Budget, arguments: tuple) -> bytes:
    """`_codecs.encode`: how protocols 0 to 2 write bytes.

    Raises:
        PickleError: if it is of another kind, or can't be.
    """
    match arguments:
        case (str() as text, "latin1" | "latin-1"):
            budget.spend(len(text))
            return text.encode("latin-1")
    raise PickleError("describes bytes in another encoding than latin1; refused")


def no_bytes(_: Budget, arguments: tuple) -> bytes:
    """`bytes()`: how protocols 0 to 2 write no bytes."""
    expect(arguments == (), "bytes")
    return b""


def empty_dict(_: Budget, arguments: tuple) -> dict[str, Any]:
    """`OrderedDict()`.

    Raises:
        PickleError: if it is of another kind, or can't be.
    """
    expect(arguments == (), "an OrderedDict")
    return {}


def make_dtype(_: Budget, arguments: tuple) -> Dtype:
    """`numpy.dtype`, of plain numbers alone.

    Raises:
        PickleError: if it is of another kind, or can't be.
    """
    match arguments:
        case (str() as name, bool() | 0 | 1, bool() | 0 | 1) if name in DTYPES:
            return Dtype(np.dtype(name))
    raise PickleError("describes an array of other than plain numbers; refused")


def set_byte_order(built: Dtype, state: Any) -> None:
    """What BUILD does to a dtype.

    Raises:
        PickleError: if it is of another kind, or can't be.
    """
    match state:
        case (3 | 4, "<" | ">" | "|" | "=" as order, None, None, None, -1, -1, 0, *_):
            built.dtype = built.dtype.newbyteorder(order)
            return
    raise PickleError("describes an array of other than plain numbers; refused")


def new_array(budget: Budget, arguments: tuple) -> np.ndarray:
    """`_reconstruct`: an empty array, which BUILD fills.

    Raises:
        PickleError: if it is of another kind, or can't be.
    """
    match arguments:
        case (Name("numpy ndarray"), (0,), b"b" | "b"):
            budget.spend(2 * OBJECT_BYTES)
            return np.empty(0, np.int8)
    raise PickleError("describes an array of another class than numpy.ndarray; refused")


def fill_array(budget: Budget, built: np.ndarray, state: Any) -> None:
    """What BUILD does to an array.

    Raises:
        PickleError: if it is of another kind, or can't be.
    """
    expect(built.shape == (0,) and built.dtype == np.int8, "an array twice, or one")
    match state:
        case (1, shape, Dtype(dtype), bool() | 0 | 1 as is_fortran, bytes() | str() as raw):
            if isinstance(raw, str):  # Python 2's bytes
                expect(raw.isascii() or max(raw) < "\u0100", "an array")
                raw = raw.encode("latin-1")
            expect(_are_sizes(shape) and math.prod(shape) * dtype.itemsize == len(raw), "an array")
            budget.spend(len(raw))
            cast(Any, built).__setstate__((1, shape, dtype, bool(is_fortran), raw))
            return
    raise PickleError("describes an array that can't be; it is damaged")


def array_from_buffer(budget: Budget, arguments: tuple) -> np.ndarray:
    """`numpy.core.numeric._frombuffer`: how protocol 5 writes arrays.

    Raises:
        PickleError: if it is of another kind, or can't be.
    """
    match arguments:
        case (bytes() | bytearray() as raw, Dtype(dtype), shape, "C" | "F" as order):
            pass
        case (bytes() | bytearray() as raw, Dtype(dtype), shape, "C" | "F" as order, None):
            pass
        case _:
            raise PickleError("describes an array that can't be; it is damaged")
    expect(_are_sizes(shape) and math.prod(shape) * dtype.itemsize == len(raw), "an array")
    budget.spend(2 * OBJECT_BYTES)
    return np.frombuffer(raw, dtype).reshape(shape, order=order)


def make_scalar(_: Budget, arguments: tuple) -> Any:
    """`numpy.core.multiarray.scalar`.

    Raises:
        PickleError: if it is of another kind, or can't be.
    """
    match arguments:
        case (Dtype(dtype), bytes() as raw) if len(raw) == dtype.itemsize:
            return np.frombuffer(raw, dtype)[0]
    raise PickleError("describes a number that can't be; it is damaged")


def make_tensor(budget: Budget, arguments: tuple) -> np.ndarray:
    """`torch._utils._rebuild_tensor_v2`: a view of a storage.

    Raises:
        PickleError: if it is of another kind, or can't be.
    """
    match arguments:
        case (Storage(values), offset, shape, strides, bool(), dict(), *_):
            pass
        case _:
            raise PickleError("describes a tensor that can't be; it is damaged")
    expect(_is_size(offset) and _are_sizes(shape) and _are_sizes(strides) and len(shape) == len(strides), "a tensor")
    n_values = math.prod(shape)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    expect(n_values <= len(values) and (n_values == 0 or last < len(values)), "a tensor")
    if n_values == 0:
        return np.zeros(shape, values.dtype)
    budget.spend(n_values * values.itemsize + 2 * OBJECT_BYTES)
    byte_strides = [stride * values.itemsize * (size > 1) for size, stride in zip(shape, strides, strict=True)]
    return np.lib.stride_tricks.as_strided(values[offset:], shape, byte_strides).copy()
