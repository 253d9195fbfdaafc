"""Machine code on disk is used again where nothing that it was made of has changed, and nowhere else."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numba
import pytest
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaWarning

import agent_bt
from agent_bt.core import jit_cache

SOURCES = {
    "constants.py": "import numpy as np\nSTEP = 10.0\nPAIR = np.dtype([('low', np.float64), ('high', np.float64)])\n",
    "inner.py": (
        "from agent_bt.core.jit import njit\n"
        "from {name}.constants import STEP\n"
        "@njit\n"
        "def up(x):\n"
        "    return x + STEP\n"
    ),
    "outer.py": (
        "from agent_bt.core.jit import njit\n"
        "from {name}.inner import up\n"
        "@njit\n"
        "def twice(x):\n"
        "    return up(x) + up(x)\n"
    ),
    "apart.py": "from agent_bt.core.jit import njit\n@njit\ndef negative(x):\n    return -x\n",
}
PROGRAM = """
import json, sys
from {name}.outer import twice
from {name}.apart import negative
x = json.loads(sys.argv[1])
values = [twice(x), negative(x)]
print(json.dumps(values + [sum(kernel.stats.cache_hits.values()) for kernel in (twice, negative)]))
"""


class Package:
    """A package of kernels: `twice` calls `up` of another file, which has a constant of a third; `negative` calls none.

    `run` gives, from a new process: `twice(x)`, `negative(x)`, and how many of each came from the disk (0 or 1).
    """

    def __init__(self, folder: Path, name: str = "small", **environment: str) -> None:
        self.files = folder / name
        self.files.mkdir(parents=True)
        self._name = name
        places = os.pathsep.join([str(folder), str(Path(agent_bt.__file__).parents[1])])
        kept = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_")}
        self._environment = {**kept, "PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1", **environment}
        (self.files / "__init__.py").touch()
        for file, text in SOURCES.items():
            (self.files / file).write_text(text.format(name=name))

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.files / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def start(self, x: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "error", "-c", PROGRAM.format(name=self._name), json.dumps(x)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=self._environment, stdout=pipe, stderr=pipe, text=True)

    def run(self, x: float = 1.0) -> list[float]:
        return _said(self.start(x))


def _said(process: subprocess.Popen[str]) -> list[float]:
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    said: list[float] = json.loads(out)
    return said


def test_an_edit_recompiles_what_contains_it_and_nothing_else(tmp_path: Path) -> None:
    package = Package(tmp_path)
    assert package.run() == [22.0, -1.0, 0, 0]
    assert package.run() == [22.0, -1.0, 1, 1]
    package.edit("inner.py", "x + STEP", "x * STEP")
    assert package.run() == [20.0, -1.0, 0, 1]
    # The file keeps its size and its time.
    before = (package.files / "constants.py").stat()
    package.edit("constants.py", "10.0", "30.0")
    os.utime(package.files / "constants.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert package.run() == [60.0, -1.0, 0, 1]
    package.edit("apart.py", "-x", "-x - x")
    assert package.run() == [60.0, -2.0, 1, 0]


def test_code_of_a_package_that_is_read_only_goes_to_the_users_cache_folder(tmp_path: Path) -> None:
    package = Package(tmp_path, HOME=str(tmp_path / "kept"), XDG_CACHE_HOME=str(tmp_path / "kept"))
    # As good as read-only, also for root: no folder can be made here.
    (package.files / "__pycache__").touch()
    assert package.run() == [22.0, -1.0, 0, 0]
    assert package.run() == [22.0, -1.0, 1, 1]
    assert list((tmp_path / "kept").rglob("kernel-outer.twice-*.nbc"))
    package.edit("inner.py", "x + STEP", "x * STEP")
    assert package.run() == [20.0, -1.0, 0, 1]


@pytest.mark.verify
def test_text_that_is_not_compiled_and_file_times_do_not_count(tmp_path: Path) -> None:
    package = Package(tmp_path)
    package.run()
    package.edit("inner.py", "    return", '    """Add a step."""\n    # A comment.\n    return')
    package.edit("outer.py", "@njit", "\n\n@njit")
    package.edit("constants.py", "STEP", "OTHER = 3.0\nSTEP")
    for file in package.files.glob("*.py"):
        os.utime(file, (1e9, 1e9))
    assert package.run() == [22.0, -1.0, 1, 1]


@pytest.mark.verify
def test_packages_of_the_same_name_do_not_share_different_kernels(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    one = Package(tmp_path / "one", NUMBA_CACHE_DIR=str(kept))
    two = Package(tmp_path / "two", NUMBA_CACHE_DIR=str(kept))
    two.edit("constants.py", "10.0", "20.0")
    for found in (0, 1):
        assert one.run() == [22.0, -1.0, found, found]
        assert two.run() == [42.0, -1.0, found, found]
    assert list(kept.rglob("kernel-outer.twice-*.nbc"))


def test_processes_that_compile_at_once_leave_the_code_of_all(tmp_path: Path) -> None:
    package = Package(tmp_path)
    for process in [package.start(x) for x in (1, 1.5)]:
        _said(process)
    assert [package.run(x) for x in (1, 1.5)] == [[22.0, -1, 1, 1], [23.0, -1.5, 1, 1]]


@pytest.mark.verify
def test_superseded_code_is_removed_after_a_day_and_unused_code_after_a_month(tmp_path: Path) -> None:
    package = Package(tmp_path)
    package.run()
    folder = package.files / "__pycache__"
    age = {"inner.up": 2, "outer.twice": 0.1, "apart.negative": 2, "gone.kernel": 2, "lost.kernel": 40}
    for lost in ("gone", "lost"):
        (folder / f"kernel-{lost}.kernel-1-2.nbi").touch()
        (folder / f"kernel-{lost}.kernel-1-2.1.nbc").touch()
    (folder / "other.function-12.py311.nbi").touch()
    os.utime(folder / "other.function-12.py311.nbi", (1e9, 1e9))
    for path in folder.glob("kernel-*"):
        days = age[path.name.split("-")[1]]
        os.utime(path, (time.time() - days * 86_400,) * 2)
    package.edit("inner.py", "x + STEP", "x - STEP")
    package.run()
    left = sorted(path.name.split("-")[1] for path in folder.glob("kernel-*.nbi"))
    assert left == ["apart.negative", "gone.kernel", "inner.up", "outer.twice", "outer.twice"]
    assert len(list(folder.glob("kernel-*.nbc"))) == len(left)
    assert (folder / "other.function-12.py311.nbi").exists()
    # Use counts, not age: it was read just now.
    assert time.time() - next(folder.glob("kernel-apart.negative-*.nbi")).stat().st_mtime < 86_400


def _module(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> ModuleType:
    """A module of kernels, in this process; the text follows the import of `njit`."""
    (folder / "lone.py").write_text("from agent_bt.core.jit import njit\n" + text)
    monkeypatch.syspath_prepend(str(folder))
    # Python takes a file that was written again within a second for the one whose bytecode it has.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    # Beside the module, wherever the machine code of the other tests is kept.
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.delitem(sys.modules, "lone", raising=False)
    importlib.invalidate_caches()
    return importlib.import_module("lone")


def _kept(folder: Path) -> list[str]:
    return sorted(path.name.split("-")[1] for path in folder.rglob("kernel-*.nbc"))


def test_a_kernel_compiled_before_its_constant_was_set_is_not_kept_under_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lone = _module(
        tmp_path,
        monkeypatch,
        "K = 1\n@njit\ndef inner(x):\n    return x + K\n@njit\ndef outer(x):\n    return inner(x)\n",
    )
    assert lone.inner(1.0) == 2.0
    monkeypatch.setattr(lone, "K", 5)
    # numba goes on with what it has compiled; another process would not.
    assert lone.outer(1.0) == 2.0
    assert _kept(tmp_path) == ["lone.inner"]
    monkeypatch.setattr(lone, "K", 1)
    assert lone.outer(1) == 2
    assert _kept(tmp_path) == ["lone.inner", "lone.inner"]


def test_code_in_a_folder_that_cannot_be_written_any_more_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "@njit\ndef inner(x):\n    return x + 1\n"
    _module(tmp_path, monkeypatch, text).inner(1.0)

    def refuse(*arguments: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    again = _module(tmp_path, monkeypatch, text).inner
    assert again(1.0) == 2.0
    assert sum(again.stats.cache_hits.values()) == 1


def test_a_kernel_that_uses_what_cannot_be_read_says_so_and_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lone = _module(
        tmp_path,
        monkeypatch,
        "from numba.extending import register_jitable\n@register_jitable\ndef helper(x):\n    return x + 1\n"
        "@njit\ndef outer(x):\n    return helper(x)\n",
    )
    with pytest.warns(NumbaWarning, match="lone.outer is compiled anew in each process: it uses function"):
        assert lone.outer(1.0) == 2.0
    assert _kept(tmp_path) == []


def test_a_kernel_that_is_given_a_kernel_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lone = _module(
        tmp_path,
        monkeypatch,
        "@njit\ndef inner(x):\n    return x + 1\n@njit\ndef outer(function, x):\n    return function(x)\n",
    )
    assert lone.outer(lone.inner, 1.0) == 2.0
    assert _kept(tmp_path) == ["lone.inner"]


KERNEL = """
import enum
from collections import namedtuple
import numpy as np
from numba import types
from numba.extending import intrinsic
import {other} as other
class Side(enum.IntEnum):
    BUY = 1
    SELL = 2
Point = namedtuple("Point", "x y")
WHERE = Point(1.0, 2.0)
TABLE = np.array([1.0, 2.0])
ROW = np.dtype([("a", np.int64)])
@intrinsic
def one(typing):
    return types.int64(), lambda context, builder, signature, arguments: context.get_constant(types.int64, 1)
def add(n):
    @njit
    def added(x, times=3):
        return x + n * times
    return added
two = add(2)
@njit
def kernel(x):
    def inside(y):
        return y * 7
    cells = np.zeros(1, ROW)
    return inside(x) + Side.SELL.value + WHERE.y + TABLE[1] + cells[0].a + one() + two(x) + other.five() + other.STEP
"""
OTHER = "from agent_bt.core.jit import njit\nSTEP = 4\nUNUSED = 8\n@njit\ndef five():\n    return 5\n"


def _fingerprint(folder: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> tuple[str, float]:
    assert old in KERNEL + OTHER
    (folder / "other_kernels.py").write_text(OTHER.replace(old, new))
    monkeypatch.delitem(sys.modules, "other_kernels", raising=False)
    lone = _module(folder, monkeypatch, KERNEL.replace("{other}", "other_kernels").replace(old, new))
    return jit_cache.fingerprint(jit_cache.reached(lone.kernel)), lone.kernel(1.0)


def test_every_kind_of_value_in_a_kernel_is_part_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, value = _fingerprint(tmp_path, monkeypatch, "x", "x")
    assert value == 7.0 + 2 + 2.0 + 2.0 + 0 + 1 + (1.0 + 2 * 3) + 5 + 4
    edits = {
        "SELL = 2": "SELL = 3",
        "Point(1.0, 2.0)": "Point(1.0, 3.0)",
        "np.array([1.0, 2.0])": "np.array([1.0, 3.0])",
        "types.int64, 1)": "types.int64, 2)",
        "two = add(2)": "two = add(2.5)",
        "times=3": "times=4",
        "y * 7": "y * 8",
        "return 5": "return 6",
        "STEP = 4": "STEP = 5",
    }
    names = {name}
    for old, new in edits.items():
        other, changed = _fingerprint(tmp_path, monkeypatch, old, new)
        assert changed != value, old
        names.add(other)
    names.add(_fingerprint(tmp_path, monkeypatch, '("a", np.int64)', '("a", np.int32)')[0])
    assert len(names) == len(edits) + 2
    assert _fingerprint(tmp_path, monkeypatch, "UNUSED = 8", "UNUSED = 9") == (name, value)


def _project_kernels() -> dict[str, Dispatcher]:
    found = {}
    for module in pkgutil.walk_packages(agent_bt.__path__, "agent_bt."):
        if not module.name.endswith("__main__"):
            for value in vars(importlib.import_module(module.name)).values():
                if isinstance(value, Dispatcher):
                    found[f"{value.py_func.__module__}.{value.py_func.__qualname__}"] = value
    return found


def test_every_kernel_of_the_project_can_be_kept_and_those_of_the_core_contain_only_the_core() -> None:
    kernels = _project_kernels()
    assert "agent_bt.core.accounting.advance" in kernels
    for name, kernel in kernels.items():
        packages = {each.py_func.__module__.split(".")[1] for each in jit_cache.reached(kernel)}
        if name.startswith("agent_bt.core."):
            assert packages == {"core"}, name


def test_the_project_registers_nothing_with_numba_that_a_name_could_not_show() -> None:
    text = "\n".join(path.read_text() for path in Path(agent_bt.__file__).parent.rglob("*.py"))
    assert set(re.findall(r"^(?:from|import) numba\.extending.*$", text, re.MULTILINE)) <= {
        "from numba.extending import intrinsic",
        "from numba.extending import _Intrinsic",
    }
