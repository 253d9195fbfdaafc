"""Find implementations by name, one module each, or by import path `module:Class`."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from agent_bt.core.errors import ConfigError
from agent_bt.core.suggest import did_you_mean

T = TypeVar("T")


class ExtensionPoint(Generic[T]):
    """The named implementations of one kind of object, such as model providers.

    An implementation registers itself in a module of `package` that has its name. The module is imported when the name
    is looked up: listing and checking names imports none of them. A user's own implementation is named by import path.

    Args:
        setting: the configuration key that names an implementation, for messages: `llm.provider`.
        package: the package whose modules are the implementations: `agent_bt.llm.providers`.
    """

    def __init__(self, setting: str, package: str) -> None:
        self.setting = setting
        self.package = package
        self._registered: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that makes a class or function available as `name`."""

        def decorate(implementation: T) -> T:
            self._registered[name] = implementation
            return implementation

        return decorate

    def names(self) -> list[str]:
        """Return all names that can be looked up, sorted."""
        places = importlib.import_module(self.package).__path__
        modules = {module.name for module in pkgutil.iter_modules(places) if not module.name.startswith("_")}
        return sorted(modules | self._registered.keys())

    def check(self, name: str) -> None:
        """Check that a name can be looked up, without importing what it names.

        Raises:
            ValueError: it is neither a known name nor written like an import path.
        """
        if is_import_path(name):
            return
        known = self.names()
        if name not in known:
            raise ValueError(f"{name!r} is not one of {', '.join(known)}, or module:Class{did_you_mean(name, known)}")

    def load(self, name: str) -> T:
        """Return the implementation that a name or an import path stands for.

        Raises:
            ConfigError: there is no such name, or the import path cannot be imported.
        """
        if name in self._registered:
            return self._registered[name]
        try:
            self.check(name)
        except ValueError as error:
            raise ConfigError(f"{self.setting}: {error}") from None
        if is_import_path(name):
            found: T = import_object(name, self.setting)
            return found
        importlib.import_module(f"{self.package}.{name}")
        if name not in self._registered:
            raise ConfigError(f"{self.setting}: the module {self.package}.{name} does not register {name!r}")
        return self._registered[name]


def is_import_path(name: str) -> bool:
    """Return whether a name is written as `module:Class` or `package.module:Class`."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), attribute))


def import_object(path: str, setting: str) -> Any:
    """Import what an import path names; modules in the working directory are found too.

    Args:
        path: `module:Class`.
        setting: the configuration key it comes from, for messages.

    Raises:
        ConfigError: the path is not written like that, or the module or the attribute is missing.
    """
    if not is_import_path(path):
        raise ConfigError(
            f"{setting}: {path!r} is not an import path; write it as module:Class, as in my_module:MyClass"
        )
    module_name, _, attribute = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(f"{setting} {path}: there is no module {error.name} in {here} or installed") from None
        raise ConfigError(
            f"{setting} {path}: {module_name} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, attribute):
        raise ConfigError(f"{setting} {path}: module {module_name} has no class {attribute}")
    return getattr(module, attribute)
