"""Machine code on disk, under a name made of everything it was compiled from.

numba compares the file of a function with what it kept, and nothing else: it would go on with an old copy of a kernel
or constant that another file provides. Here a kernel is kept under a fingerprint of what the compiler reads, which is
in memory, not in files:
  1. the bytecode and options of the kernel, and its constants                                        `ingredients`
  2. the values of the globals, closure variables and module attributes it names                      `_Reader.read`
  3. the same of every kernel among these, and so on                                                  `reached`
  4. the signature, the processor, numba's settings, the versions of Python, numba and NumPy          `KernelCache`
So an edit recompiles the kernels that contain what was edited and no others; comments, docstrings, line numbers and
file times do not count. What cannot be read for certain is compiled anew in each process, with a warning. Out of sight
are only the overloads that a project registers with `numba.extending`: use `intrinsic`, which is read.

The folder is where numba would keep the function: NUMBA_CACHE_DIR, else `__pycache__` beside the module, else, where
that is read-only, the cache folder of the user.
"""

from __future__ import annotations

import dis
import enum
import hashlib
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numba
import numpy as np
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaWarning
from numba.extending import _Intrinsic

_COMPILERS_OWN = {"builtins", "math", "cmath", "operator", "random", "numpy", "numba", "llvmlite"}
"""Packages whose functions and types numba knows by name: their versions identify their content."""

_PLAIN = {bool, int, float, complex, str, bytes, type(None), type(Ellipsis)}
_VERSIONS = (sys.implementation.cache_tag, sys.version, numba.__version__, np.__version__)

_SETTINGS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT")
"""Settings of numba that change machine code."""

_SUPERSEDED_AFTER = 86_400.0
"""Seconds without use after which code of a kernel that has changed since is removed."""

_UNUSED_AFTER = 30 * 86_400.0
"""Seconds without use after which any code is removed."""


class UnreadableError(Exception):
    """Raised if it is not certain what a kernel is compiled from."""


@dataclass(slots=True)
class Ingredients:
    """What a kernel itself is compiled from: values as text, in the order of use, and the kernels it names."""

    text: list[str] = field(default_factory=list)
    kernels: list[Dispatcher] = field(default_factory=list)

    def same(self, other: Ingredients) -> bool:
        """Whether both would compile to the same; kernels are compared by identity, as the compiler takes them."""
        return self.text == other.text and [*map(id, self.kernels)] == [*map(id, other.kernels)]


def ingredients(kernel: Dispatcher) -> Ingredients:
    """Read what a kernel itself is compiled from, at this moment.

    Raises:
        UnreadableError: it names a value of a kind that is not known here.
    """
    reader = _Reader()
    reader.add("options", sorted(kernel.targetoptions.items()), sorted(kernel.locals.items()))
    reader.read_function(kernel.py_func)
    return reader.found


def reached(kernel: Dispatcher) -> dict[Dispatcher, Ingredients]:
    """Read a kernel and all kernels that are compiled into it, in the order of use.

    Raises:
        UnreadableError: as of `ingredients`; without a message if one of them has been compiled in this process from
            something else: a module was loaded again, or a global was set.
    """
    found: dict[Dispatcher, Ingredients] = {}
    waiting = [kernel]
    while waiting:
        each = waiting.pop()
        if each in found:
            continue
        found[each] = ingredients(each)
        kept = getattr(each, "_cache", None)
        if each.overloads and isinstance(kept, KernelCache):
            before = kept.compiled_from
            if before is None or not before.same(found[each]):
                raise UnreadableError
        waiting.extend(reversed(found[each].kernels))
    return found


def fingerprint(found: dict[Dispatcher, Ingredients]) -> str:
    """Hash what `reached` found, as hexadecimal SHA-256."""
    numbers = {each: number for number, each in enumerate(found)}
    digest = hashlib.sha256(repr(_VERSIONS).encode())
    for each in found.values():
        digest.update(repr((each.text, [numbers[inner] for inner in each.kernels])).encode())
    return digest.hexdigest()


class _Reader:
    def __init__(self) -> None:
        self.found = Ingredients()
        self._modules: set[ModuleType] = set()

    def add(self, *parts: object) -> None:
        self.found.text.append(repr(parts))

    def read_function(self, function: Any) -> None:
        self.add("function", function.__module__, function.__qualname__)
        for default in (function.__defaults__, *(function.__kwdefaults__ or {}).items()):
            self.read(default, ())
        code = function.__code__
        attributes = tuple(_names(code))
        self._read_code(code, function.__globals__, attributes)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            self.add("closure", name)
            self.read(cell.cell_contents, attributes)

    def _read_code(self, code: CodeType, namespace: dict[str, Any], attributes: tuple[str, ...]) -> None:
        self.add(
            *("code", code.co_code, code.co_flags, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars),
            *(code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_exceptiontable),
        )
        constants, names = _used(code)
        for number in constants:
            constant = code.co_consts[number]
            self.add("constant", number)
            if isinstance(constant, CodeType):
                self._read_code(constant, namespace, attributes)
            else:
                self.read(constant, ())
        for name in names:
            self.add("global", name)
            if name in namespace:
                self.read(namespace[name], attributes)

    def read(self, value: Any, attributes: tuple[str, ...]) -> None:
        """Add what the compiler makes of a value; of a module, what is named among `attributes`."""
        kind = type(value)
        if isinstance(value, Dispatcher):
            self.add("kernel")
            self.found.kernels.append(value)
        elif isinstance(value, _Intrinsic):
            self.add("intrinsic", sorted(value._ctor_kwargs.items()), value._prefer_literal)
            self.read_function(value._defn)
        elif isinstance(value, enum.Enum):
            self.add("member", value.name)
            self.read(kind, ())
        elif isinstance(value, ModuleType):
            self._read_module(value, attributes)
        elif kind in _PLAIN:
            self.add(kind.__name__, value)
        elif kind is slice:
            self.add("slice")
            self.read((value.start, value.stop, value.step), ())
        elif kind is frozenset:
            self.add("frozenset", sorted(map(repr, value)))
        elif isinstance(value, tuple):
            self.add("tuple", kind.__module__, kind.__qualname__, getattr(kind, "_fields", ()), len(value))
            for each in value:
                self.read(each, attributes)
        elif isinstance(value, np.dtype) and not value.hasobject:
            self.add("dtype", value)
        elif isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
            self.add("array", kind.__name__, value.dtype, value.shape, value.strides, value.tobytes())
        else:
            self._read_named(value)

    def _read_module(self, module: ModuleType, attributes: tuple[str, ...]) -> None:
        self.add("module", module.__name__)
        if module.__name__.partition(".")[0] in _COMPILERS_OWN or module in self._modules:
            return
        self._modules.add(module)
        for name in attributes:
            if hasattr(module, name):
                self.add("attribute", name)
                self.read(getattr(module, name), attributes)

    def _read_named(self, value: Any) -> None:
        """Add what a name is enough for: enumerations and named tuples, and what numba itself knows."""
        if isinstance(value, type) and issubclass(value, enum.Enum):
            self.add("enum", value.__module__, value.__qualname__, value.__mro__)
            for member in value:
                self.add(member.name)
                self.read(member.value, ())
        elif isinstance(value, type) and issubclass(value, tuple) and hasattr(value, "_fields"):
            self.add("namedtuple", value.__module__, value.__qualname__, value._fields)
        elif isinstance(value, type) and issubclass(value, BaseException):
            self.add("exception", value.__module__, value.__qualname__)
        elif isinstance(value, np.ufunc | numba.types.Type):
            self.add(type(value).__name__, str(value))
        else:
            module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
            if name is None or str(module).partition(".")[0] not in _COMPILERS_OWN:
                raise UnreadableError(f"{type(value).__name__} {value!r}")
            self.add("known", module, name)


@cache
def _used(code: CodeType) -> tuple[list[int], list[str]]:
    """Constants, by number, and globals that instructions load: a docstring is a constant which none does."""
    constants, names = [], []
    for step in dis.get_instructions(code):
        if step.opcode in dis.hasconst and step.arg is not None:
            constants.append(step.arg)
        elif step.opcode in dis.hasname and "ATTR" not in step.opname and "METHOD" not in step.opname:
            names.append(step.argval)
    return list(dict.fromkeys(constants)), list(dict.fromkeys(names))


def _names(code: CodeType) -> Iterator[str]:
    """Names in a function and in those inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


class KernelCache(FunctionCache):  # type: ignore[misc]
    """Keep the machine code of one kernel, each signature in files of its own.

    So processes that run at the same time can only write the same to a file; numba puts all signatures of a function
    into one index, where the writer that comes last leaves the other's code under its own signature.
    """

    def __init__(self, kernel: Dispatcher) -> None:
        super().__init__(kernel.py_func)
        self._kernel = kernel
        function = kernel.py_func
        self._stem = f"kernel-{Path(function.__code__.co_filename).stem}.{function.__qualname__}"
        self._stem = self._stem.replace("<", "").replace(">", "")
        self._awaited: dict[Any, str] = {}
        self.compiled_from: Ingredients | None = None

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Load the code for a signature; None if there is none, or if it is not certain what it is compiled from.

        Args:
            sig: types of the arguments, as numba describes them.
            target_context: numba's description of the processor.
        """
        self._awaited.pop(sig, None)
        name = self._name_for(sig, target_context.codegen())
        if name is None:
            return None
        with self._file(name) as index:
            code = super().load_overload(sig, target_context)
            if code is not None:
                # Used just now; of no account where the folder is read-only.
                with suppress(OSError):
                    os.utime(index)
                return code
        self._awaited[sig] = name
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save the code for a signature under the name that `load_overload` looked for.

        Args:
            sig: types of the arguments, as given to `load_overload`.
            data: what numba has compiled.
        """
        name = self._awaited.pop(sig, None)
        if name is None:
            return
        with self._file(name) as index:
            super().save_overload(sig, data)
            _clean(index)

    def flush(self) -> None:
        """Do nothing: what is kept is never out of date."""

    def _name_for(self, sig: Any, codegen: Any) -> str | None:
        try:
            found = reached(self._kernel)
        except UnreadableError as error:
            if error.args:
                warnings.warn(
                    f"{self._stem} is compiled anew in each process: it uses {error}, and what that adds to machine "
                    "code is not known; use constants, compiled functions and what numba itself knows",
                    NumbaWarning,
                    stacklevel=2,
                )
            return None
        if not self._kernel.overloads:
            self.compiled_from = found[self._kernel]
        if " at 0x" in str(sig):
            # A kernel is an argument: its type is its address, which means nothing to another process.
            return None
        content = fingerprint(found)
        settings = [getattr(numba.config, setting, None) for setting in _SETTINGS]
        call = hashlib.sha256(repr((content, str(sig), codegen.magic_tuple(), settings)).encode()).hexdigest()
        return f"{self._stem}-{content[:20]}-{call[:20]}"

    @contextmanager
    def _file(self, name: str) -> Iterator[Path]:
        """Make numba use this file; a full disk, or a file that another process removes, is no error."""
        self._cache_file = IndexDataCacheFile(self._cache_path, name, source_stamp="")
        with suppress(OSError):
            yield Path(self._cache_path, f"{name}.nbi")

    def _index_key(self, sig: Any, codegen: Any) -> Any:  # noqa: ARG002
        # The rest of it is in the name of the file.
        return sig


def _clean(saved: Path) -> None:
    """Remove code that was not used for long, from the folder of what has just been saved."""
    stem, content, _ = saved.stem.rsplit("-", 2)
    for index in saved.parent.glob("kernel-*.nbi"):
        # Another process may clean up as well.
        with suppress(OSError, ValueError):
            its_stem, its_content, _ = index.stem.rsplit("-", 2)
            superseded = its_stem == stem and its_content != content
            if time.time() - index.stat().st_mtime > (_SUPERSEDED_AFTER if superseded else _UNUSED_AFTER):
                index.unlink()
                for code in saved.parent.glob(f"{index.stem}.*.nbc"):
                    code.unlink()


def keep(kernel: Dispatcher) -> None:
    """Keep the machine code of a kernel on disk."""
    kernel._cache = KernelCache(kernel)  # type: ignore[attr-defined]
