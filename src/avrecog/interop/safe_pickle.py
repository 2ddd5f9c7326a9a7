"""Reading a pickle of plain values, numpy arrays and torch tensors without running anything that it asks for.

A pickle is a program for a stack machine, and Python's own machine calls whatever the program names. This one knows the
few names that such files need, each with a function of its own here, and refuses every other by name. It imports
nothing: neither torch nor what a file names. Tensors come as numpy arrays.

Opcodes and their arguments are taken apart by `pickletools`, which looks but does not act.
Source: Python's documentation of `pickletools`; NumPy's and PyTorch's `__reduce__`, protocols 0 to 5.
"""

import io
import pickletools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from avrecog.errors import PickleError
from avrecog.interop.pickle_values import (
    MAX_TIMES,
    OBJECT_BYTES,
    Budget,
    Dtype,
    Name,
    Storage,
    array_from_buffer,
    empty_dict,
    encoded,
    expect,
    fill_array,
    format_value,
    make_dtype,
    make_scalar,
    make_tensor,
    new_array,
    no_bytes,
    set_byte_order,
)

MAX_BYTES = 2**30  # of a file

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
        if n_bytes > MAX_BYTES:
            raise PickleError(f"{path}: expected at most {MAX_BYTES:,} bytes, got {n_bytes:,}")
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
    budget = Budget(MAX_TIMES * len(content) + 2**16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pickletools, over a backslash in a name
        return _Machine(io.BytesIO(content), len(content), budget, CALLS).run()


class _Machine:
    """Runs one pickle of a file; the names in `calls` are known, all others are refused."""

    def __init__(
        self,
        file: io.BytesIO,
        n_bytes: int,
        budget: Budget,
        calls: "dict[str, Callable[[Budget, tuple], Any] | None]",
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
        self._stack.append(Name(argument))

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
        function = self._calls[named.name] if isinstance(named, Name) else None
        if function is None or not isinstance(arguments, tuple):
            raise PickleError(
                f"calls {format_value(named)} with {format_value(arguments)}, expected a function it may name; refused"
            )
        self._budget.spend(OBJECT_BYTES)
        self._stack.append(function(self._budget, arguments))

    def build(self, _: None) -> None:
        state, built = self._stack.pop(), self._stack[-1]
        if isinstance(built, Dtype):
            set_byte_order(built, state)
        elif isinstance(built, np.ndarray):
            fill_array(self._budget, built, state)
        else:
            raise PickleError(f"sets the state of {format_value(built)}, expected an array; refused")

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
            raise PickleError(f"appends to {format_value(self._stack[-1])}, expected a list; refused")
        self._stack[-1].extend(map(_plain, items))

    def _set(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], dict) or len(items) % 2:
            raise PickleError(f"sets items of {format_value(self._stack[-1])}, expected a dict; refused")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):  # a deep tuple's hash ends Python; numbers can be chosen to collide
                raise PickleError(f"has {format_value(key)} as a dict's key, expected text; refused")
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


def _plain(value: Any) -> Any:
    # what a list, a dict or the whole pickle may hold
    if isinstance(value, Name | Dtype | Storage):
        raise PickleError(f"holds {format_value(value)}, expected values and arrays")
    return value


def _storage(budget: Budget, arguments: tuple) -> Storage:
    """`torch.storage._load_from_bytes`: a file of torch.save, as written before 1.6, inside of this one.

    Five pickles (magic number, protocol, system, the storage by a persistent id, the ids) and each storage's length
    and numbers.
    """
    expect(len(arguments) == 1 and isinstance(arguments[0], bytes), "a tensor's storage")
    content = arguments[0]
    budget.spend(len(content))
    file = io.BytesIO(content)
    asked: list[tuple[str, np.dtype, int]] = []

    def note(identity: Any) -> None:
        match identity:
            case ("storage", Name(name), str() as key, str(), int() as n_values, None) if name in STORAGES:
                asked.append((key, STORAGES[name], n_values))
                return
        raise PickleError("refers to other than a tensor's storage; refused")

    names: dict[str, Callable[[Budget, tuple], Any] | None] = dict.fromkeys(STORAGES)

    def value(persistent: Callable[[Any], None] | None = None) -> _Machine:
        return _Machine(file, len(content), budget, names, persistent)

    expect(value().run() == TORCH_MAGIC and value().run() == TORCH_PROTOCOL, "a tensor's storage")
    system = value().run()
    expect(isinstance(system, dict) and system.get("little_endian") is True, "a big-endian storage, or one")
    value(note).run()
    keys = value().run()
    expect(len(asked) == 1 and keys == [asked[0][0]], "a tensor's storage")
    _, dtype, n_values = asked[0]
    (there,) = np.frombuffer(file.read(8).ljust(8, b"\xff"), "<i8").tolist()
    raw = content[file.tell() :]
    expect(there == n_values >= 0 and n_values * dtype.itemsize == len(raw), "a tensor's storage")
    return Storage(np.frombuffer(raw, dtype))


CALLS: dict[str, Callable[[Budget, tuple], Any] | None] = {
    "_codecs encode": encoded,
    "__builtin__ bytes": no_bytes,
    "builtins bytes": no_bytes,
    "collections OrderedDict": empty_dict,
    "numpy dtype": make_dtype,
    "numpy ndarray": None,  # only an argument
    "torch._utils _rebuild_tensor_v2": make_tensor,
    "torch.storage _load_from_bytes": _storage,
    **{
        f"numpy.{core}.{name}": function
        for core in ("core", "_core")  # NumPy 1 and 2
        for name, function in {
            "multiarray _reconstruct": new_array,
            "multiarray scalar": make_scalar,
            "numeric _frombuffer": array_from_buffer,
        }.items()
    },
}
