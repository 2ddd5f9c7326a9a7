"""Reading a pickle of plain values, numpy arrays and torch tensors without running anything that it asks for.

A pickle is a program for a stack machine, and Python's own machine calls whatever the program names. This one knows the
few names that such files need, each with a function of its own here, and refuses every other by name. It imports
nothing: neither torch nor what a file names. Tensors come as numpy arrays.

Opcodes and their arguments are taken apart by `pickletools`, which looks but does not act.
Source: Python's documentation of `pickletools`; NumPy's and PyTorch's `__reduce__`, protocols 0 to 5.
"""

import io
import math
import pickletools
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from avrecog.errors import PickleError

MOST_BYTES = 2**30  # of a file
MOST_TIMES = 16  # its size, for what is made from it; real files need up to 8
OBJECT_BYTES = 64  # of an empty list, tuple or dict
MOST_AXES = 8

DTYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
STORAGES = {
    f"torch {name}Storage": np.dtype(dtype)
    for name, dtype in {
        "Bool": "b1",
        "Byte": "u1",
        "Char": "i1",
        "Short": "<i2",
        "Int": "<i4",
        "Long": "<i8",
        "Half": "<f2",
        "Float": "<f4",
        "Double": "<f8",
    }.items()
}
TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # first value of a file that torch.save wrote before it wrote zip files
TORCH_PROTOCOL = 1001

PUSHED = frozenset(
    ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING")
    + ("SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES")
    + ("BINBYTES8", "BYTEARRAY8")
)  # opcodes whose argument is the value
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
IGNORED = frozenset(("PROTO", "FRAME"))


def read_pickle(path: Path) -> Any:
    """The value in a pickle file: None, booleans, numbers, text, bytes, lists, tuples, dicts with text as keys, arrays.

    Takes at most some 30 times the file's size in memory.

    Raises:
        PickleError: if the file can't be read, is damaged, or asks for anything else.
    """
    try:
        n_bytes = path.stat().st_size
        if n_bytes > MOST_BYTES:
            raise PickleError(f"{path}: expected at most {MOST_BYTES:,} bytes, got {n_bytes:,}")
        content = path.read_bytes()
    except OSError as error:
        raise PickleError(f"{path}: can't be read ({error.strerror})") from None
    try:
        return loads(content)
    except PickleError as error:
        raise PickleError(f"{path}: {error}") from None


def loads(content: bytes) -> Any:
    """The value in the bytes of a pickle, as `read_pickle` gives it.

    Raises:
        PickleError: if it is damaged or asks for anything else.
    """
    budget = _Budget(MOST_TIMES * len(content) + 2**16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pickletools, over a backslash in a name
        return _Machine(io.BytesIO(content), len(content), budget, CALLS).run()


@dataclass
class _Budget:
    """Bytes that may still be made: references repeat what is stored once, so a small file could ask for any amount."""

    n_bytes: int

    def spend(self, n_bytes: int) -> None:
        self.n_bytes -= n_bytes
        if self.n_bytes < 0:
            raise PickleError(f"unfolds to more than {MOST_TIMES} times its size, so it isn't read")


@dataclass(frozen=True)
class _Name:
    """What stands for a class or function that a pickle names."""

    name: str


@dataclass
class _Dtype:
    """A number format that is being described."""

    dtype: np.dtype


@dataclass(frozen=True)
class _Storage:
    """The numbers behind a tensor."""

    values: np.ndarray  # (n,)


class _Machine:
    """Runs one pickle of a file; the names in `calls` are known, all others are refused."""

    def __init__(
        self,
        file: io.BytesIO,
        n_bytes: int,
        budget: _Budget,
        calls: "dict[str, Callable[[_Budget, tuple], Any] | None]",
        persistent: Callable[[Any], None] | None = None,
    ) -> None:
        self._file, self._n_bytes, self._budget = file, n_bytes, budget
        self._calls, self._persistent = calls, persistent
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value at the end.

        Raises:
            PickleError: as `read_pickle` says.
        """
        try:
            for opcode, argument, _ in pickletools.genops(self._file):
                name = opcode.name
                if name in PUSHED:
                    if isinstance(argument, str | bytes | bytearray):
                        self._budget.spend(len(argument))
                    self._stack.append(argument)
                elif name in CONSTANTS:
                    self._stack.append(CONSTANTS[name])
                elif name in OPERATIONS:
                    OPERATIONS[name](self, argument)
                elif name == "STOP":
                    return _plain(self._stack.pop())
                elif name not in IGNORED:
                    code = "" if argument is None else f" {argument!r:.60}"
                    raise PickleError(f"asks for {name}{code}, which no file of numbers needs; refused")
        except (ValueError, IndexError, RecursionError) as error:  # pickletools' words, or a stack that is empty
            raise PickleError(f"is damaged or no pickle ({error})") from None
        raise PickleError("is damaged or no pickle (no end)")

    def name(self, argument: str) -> None:
        # as pickletools gives it: `module name`
        if argument not in self._calls:
            raise PickleError(f"asks for {argument.replace(' ', '.', 1)!r:.200}, which could run code; refused")
        self._stack.append(_Name(argument))

    def stack_name(self, _: None) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise ValueError("a name that is no text")
        self.name(f"{module} {name}")

    def instance(self, argument: str) -> None:
        self.name(argument)
        raise PickleError(f"asks for an object of {argument.replace(' ', '.', 1)} by INST; refused")

    def call(self, _: None) -> None:
        arguments, named = self._stack.pop(), self._stack.pop()
        function = self._calls[named.name] if isinstance(named, _Name) else None
        if function is None or not isinstance(arguments, tuple):
            raise PickleError(f"calls {_said(named)} with {_said(arguments)}, expected a function it may name; refused")
        self._budget.spend(OBJECT_BYTES)
        self._stack.append(function(self._budget, arguments))

    def build(self, _: None) -> None:
        state, built = self._stack.pop(), self._stack[-1]
        if isinstance(built, _Dtype):
            _set_byte_order(built, state)
        elif isinstance(built, np.ndarray):
            _fill(self._budget, built, state)
        else:
            raise PickleError(f"sets the state of {_said(built)}, expected an array; refused")

    def persistent_id(self, _: None) -> None:
        if self._persistent is None:
            raise PickleError("refers to an object outside of the file (BINPERSID); refused")
        self._persistent(self._stack.pop())
        self._stack.append(None)

    def mark(self, _: None) -> None:
        self._budget.spend(OBJECT_BYTES)
        self._marked.append(self._stack)
        self._stack = []

    def pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._marked.pop()
        return items

    def pop(self, _: None) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self.pop_mark()

    def drop_marked(self, _: None) -> None:
        self.pop_mark()

    def duplicate(self, _: None) -> None:
        self._stack.append(self._stack[-1])

    def put(self, index: int) -> None:
        if not 0 <= index < self._n_bytes:  # a pickler counts from 0
            raise ValueError(f"memo index {index}")
        self._memo[index] = self._stack[-1]

    def memoize(self, _: None) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def get(self, index: int) -> None:
        if index not in self._memo:
            raise ValueError(f"memo index {index} is not there")
        self._stack.append(self._memo[index])

    def new(self, value: Any) -> None:
        self._budget.spend(OBJECT_BYTES)
        self._stack.append(value)

    def tuple_of(self, n_items: int) -> None:
        if len(self._stack) < n_items:
            raise IndexError(f"a tuple of {n_items} from {len(self._stack)} values")
        items = tuple(self._stack[-n_items:])
        del self._stack[-n_items:]
        self.new(items)

    def marked_tuple(self, _: None) -> None:
        items = self.pop_mark()
        self._budget.spend(8 * len(items))
        self.new(tuple(items))

    def marked_dict(self, _: None) -> None:
        items = self.pop_mark()
        self.new({})
        self._set(items)

    def append(self, _: None) -> None:
        self._extend([self._stack.pop()])

    def appends(self, _: None) -> None:
        self._extend(self.pop_mark())

    def set_item(self, _: None) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def set_items(self, _: None) -> None:
        self._set(self.pop_mark())

    def _extend(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise PickleError(f"appends to {_said(self._stack[-1])}, expected a list; refused")
        self._stack[-1].extend(map(_plain, items))

    def _set(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], dict) or len(items) % 2:
            raise PickleError(f"sets items of {_said(self._stack[-1])}, expected a dict; refused")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):  # a deep tuple's hash ends Python; numbers can be chosen to collide
                raise PickleError(f"has {_said(key)} as a dict's key, expected text; refused")
            self._budget.spend(OBJECT_BYTES)
            self._stack[-1][key] = _plain(value)


OPERATIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.stack_name,
    "INST": _Machine.instance,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent_id,
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.drop_marked,
    "DUP": _Machine.duplicate,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "EMPTY_LIST": lambda machine, _: machine.new([]),
    "EMPTY_DICT": lambda machine, _: machine.new({}),
    "EMPTY_TUPLE": lambda machine, _: machine.new(()),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "TUPLE": _Machine.marked_tuple,
    "LIST": lambda machine, _: machine.new([_plain(item) for item in machine.pop_mark()]),
    "DICT": _Machine.marked_dict,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
}


def _said(value: Any) -> str:
    return value.name.replace(" ", ".") if isinstance(value, _Name) else f"a {type(value).__name__.strip('_').lower()}"


def _plain(value: Any) -> Any:
    # what a list, a dict or the whole pickle may hold
    if isinstance(value, _Name | _Dtype | _Storage):
        raise PickleError(f"holds {_said(value)}, expected values and arrays")
    return value


def _expect(fits: bool, what: str) -> None:
    if not fits:
        raise PickleError(f"describes {what} that can't be; it is damaged")


def _are_sizes(values: Any) -> bool:
    return isinstance(values, tuple) and len(values) <= MOST_AXES and all(_is_size(value) for value in values)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < sys.maxsize


def _encoded(budget: _Budget, arguments: tuple) -> bytes:
    # `_codecs.encode`: how protocols 0 to 2 write bytes
    match arguments:
        case (str() as text, "latin1" | "latin-1"):
            budget.spend(len(text))
            return text.encode("latin-1")
    raise PickleError("describes bytes in another encoding than latin1; refused")


def _no_bytes(_: _Budget, arguments: tuple) -> bytes:
    """`bytes()`: how protocols 0 to 2 write no bytes."""
    _expect(arguments == (), "bytes")
    return b""


def _empty_dict(_: _Budget, arguments: tuple) -> dict[str, Any]:
    _expect(arguments == (), "an OrderedDict")
    return {}


def _dtype(_: _Budget, arguments: tuple) -> _Dtype:
    match arguments:
        case (str() as name, bool() | 0 | 1, bool() | 0 | 1) if name in DTYPES:
            return _Dtype(np.dtype(name))
    raise PickleError("describes an array of other than plain numbers; refused")


def _set_byte_order(built: _Dtype, state: Any) -> None:
    match state:
        case (3 | 4, "<" | ">" | "|" | "=" as order, None, None, None, -1, -1, 0, *_):
            built.dtype = built.dtype.newbyteorder(order)
            return
    raise PickleError("describes an array of other than plain numbers; refused")


def _new_array(budget: _Budget, arguments: tuple) -> np.ndarray:
    # `_reconstruct`: an empty array, which BUILD fills
    match arguments:
        case (_Name("numpy ndarray"), (0,), b"b" | "b"):
            budget.spend(2 * OBJECT_BYTES)
            return np.empty(0, np.int8)
    raise PickleError("describes an array of another class than numpy.ndarray; refused")


def _fill(budget: _Budget, built: np.ndarray, state: Any) -> None:
    _expect(built.shape == (0,) and built.dtype == np.int8, "an array twice, or one")
    match state:
        case (1, shape, _Dtype(dtype), bool() | 0 | 1 as is_fortran, bytes() | str() as raw):
            if isinstance(raw, str):  # Python 2's bytes
                _expect(raw.isascii() or max(raw) < "\u0100", "an array")
                raw = raw.encode("latin-1")
            _expect(_are_sizes(shape) and math.prod(shape) * dtype.itemsize == len(raw), "an array")
            budget.spend(len(raw))
            cast(Any, built).__setstate__((1, shape, dtype, bool(is_fortran), raw))
            return
    raise PickleError("describes an array that can't be; it is damaged")


def _from_buffer(budget: _Budget, arguments: tuple) -> np.ndarray:
    # `numpy.core.numeric._frombuffer`: how protocol 5 writes arrays
    match arguments:
        case (bytes() | bytearray() as raw, _Dtype(dtype), shape, "C" | "F" as order):
            pass
        case (bytes() | bytearray() as raw, _Dtype(dtype), shape, "C" | "F" as order, None):
            pass
        case _:
            raise PickleError("describes an array that can't be; it is damaged")
    _expect(_are_sizes(shape) and math.prod(shape) * dtype.itemsize == len(raw), "an array")
    budget.spend(2 * OBJECT_BYTES)
    return np.frombuffer(raw, dtype).reshape(shape, order=order)


def _scalar(_: _Budget, arguments: tuple) -> Any:
    match arguments:
        case (_Dtype(dtype), bytes() as raw) if len(raw) == dtype.itemsize:
            return np.frombuffer(raw, dtype)[0]
    raise PickleError("describes a number that can't be; it is damaged")


def _storage(budget: _Budget, arguments: tuple) -> _Storage:
    """`torch.storage._load_from_bytes`: a file of torch.save, as written before 1.6, inside of this one.

    Five pickles (magic number, protocol, system, the storage by a persistent id, the ids) and each storage's length
    and numbers.
    """
    _expect(len(arguments) == 1 and isinstance(arguments[0], bytes), "a tensor's storage")
    content = arguments[0]
    budget.spend(len(content))
    file = io.BytesIO(content)
    asked: list[tuple[str, np.dtype, int]] = []

    def note(identity: Any) -> None:
        match identity:
            case ("storage", _Name(name), str() as key, str(), int() as n_values, None) if name in STORAGES:
                asked.append((key, STORAGES[name], n_values))
                return
        raise PickleError("refers to other than a tensor's storage; refused")

    names: dict[str, Callable[[_Budget, tuple], Any] | None] = dict.fromkeys(STORAGES)

    def value(persistent: Callable[[Any], None] | None = None) -> _Machine:
        return _Machine(file, len(content), budget, names, persistent)

    _expect(value().run() == TORCH_MAGIC and value().run() == TORCH_PROTOCOL, "a tensor's storage")
    system = value().run()
    _expect(isinstance(system, dict) and system.get("little_endian") is True, "a big-endian storage, or one")
    value(note).run()
    keys = value().run()
    _expect(len(asked) == 1 and keys == [asked[0][0]], "a tensor's storage")
    _, dtype, n_values = asked[0]
    (there,) = np.frombuffer(file.read(8).ljust(8, b"\xff"), "<i8").tolist()
    raw = content[file.tell() :]
    _expect(there == n_values >= 0 and n_values * dtype.itemsize == len(raw), "a tensor's storage")
    return _Storage(np.frombuffer(raw, dtype))


def _tensor(budget: _Budget, arguments: tuple) -> np.ndarray:
    # `torch._utils._rebuild_tensor_v2`: a view of a storage
    match arguments:
        case (_Storage(values), offset, shape, strides, bool(), dict(), *_):
            pass
        case _:
            raise PickleError("describes a tensor that can't be; it is damaged")
    _expect(_is_size(offset) and _are_sizes(shape) and _are_sizes(strides) and len(shape) == len(strides), "a tensor")
    n_values = math.prod(shape)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    _expect(n_values <= len(values) and (n_values == 0 or last < len(values)), "a tensor")
    if n_values == 0:
        return np.zeros(shape, values.dtype)
    budget.spend(n_values * values.itemsize + 2 * OBJECT_BYTES)
    byte_strides = [stride * values.itemsize * (size > 1) for size, stride in zip(shape, strides, strict=True)]
    return np.lib.stride_tricks.as_strided(values[offset:], shape, byte_strides).copy()


CALLS: dict[str, Callable[[_Budget, tuple], Any] | None] = {
    "_codecs encode": _encoded,
    "__builtin__ bytes": _no_bytes,
    "builtins bytes": _no_bytes,
    "collections OrderedDict": _empty_dict,
    "numpy dtype": _dtype,
    "numpy ndarray": None,  # only an argument
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch.storage _load_from_bytes": _storage,
    **{
        f"numpy.{core}.{name}": function
        for core in ("core", "_core")  # NumPy 1 and 2
        for name, function in {
            "multiarray _reconstruct": _new_array,
            "multiarray scalar": _scalar,
            "numeric _frombuffer": _from_buffer,
        }.items()
    },
}
