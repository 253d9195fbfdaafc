"""Names of a package that are imported when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package that imports its public names when they are asked for.

    So importing the package costs nothing, and `agent-bt --help` does not wait for Polars and numba. Declare the names
    under `if TYPE_CHECKING` too, and assign the result under `if not TYPE_CHECKING`: a type checker would take every
    misspelt name of a module with `__getattr__` for `Any`.

    Args:
        package: name of the package, `__name__` in its `__init__`.
        modules: module of each public name.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807 - becomes the package's own
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(modules[name]), name)

    return __getattr__
