"""The folder is the registry: `nfops/operators/residual_mlp.py` is the operator `residual-mlp`.

A plugin is the same kind of file in another distribution, plus an entry point in the group `nfops.operators`
(or `nfops.backbones`): the entry point's name is the component's, its value the module. Nothing is imported before
somebody asks for it by name, so a broken plugin hurts only its caller.
"""

import dataclasses
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any, TypeAlias

from nfops import __version__
from nfops.annotations import did_you_mean
from nfops.errors import ComponentError
from nfops.schema import COMPONENT_NAME, describe

KINDS = {"backbone": "nfops.backbones", "operator": "nfops.operators"}
"""Kind -> the package of the built-in ones, which is also the group of the entry points."""


@dataclass(frozen=True)
class Component:
    """One backbone or operator; `error` says in one line why it cannot be used ("" if nothing is known against it)."""

    kind: str
    name: str
    distribution: str
    version: str
    error: str = ""


@dataclass(frozen=True)
class LoadedComponent:
    """config: the frozen dataclass of its settings. cls: the class named after its kind."""

    config: type[Any]
    cls: type[Any]


def stated(cls: type[Any], config: Any, name: str, default: Any) -> Any:
    """What an operator states under a name (`acts_on`): its settings where they decide, as an ensemble's do, else
    its class.
    """
    return getattr(config, name, getattr(cls, name, default))


_Found: TypeAlias = tuple[Component, str]
"""A component and the path of its module."""


def list_components(kind: str) -> list[Component]:
    """All components of a kind, sorted by name. Imports the plugins, to say which are broken, but no built-in one."""
    return [_tried(component, module) for component, module in _find_components(kind)]


def load_component(kind: str, name: str) -> LoadedComponent:
    """The component that a recipe names. Raises ComponentError if there is none, if two clash, or if it is broken."""
    found = _find_components(kind)
    for component, module in found:
        if component.name == name:
            return _load(component, module)
    names = sorted({component.name for component, _ in found})
    hint = f"{did_you_mean(name, names)} installed: {', '.join(names) or 'none'}".strip()
    raise ComponentError(f"{kind} {name}", "not installed", hint)


def _find_components(kind: str) -> list[_Found]:
    """Built-in ones and plugins, sorted by name; those that share a name carry the clash as their error."""
    found = sorted([*_builtins(kind), *_plugins(kind)], key=lambda pair: (pair[0].name, pair[0].distribution))
    owners: dict[str, list[str]] = {}
    for component, _ in found:
        owners.setdefault(component.name, []).append(component.distribution)
    for i, (component, module) in enumerate(found):
        if len(owners[component.name]) > 1:
            error = f"name clash between {', '.join(owners[component.name])}: uninstall all but one"
            found[i] = replace(component, error=error), module
    return found


def _builtins(kind: str) -> Iterator[_Found]:
    spec = importlib.util.find_spec(KINDS[kind])
    for module in pkgutil.iter_modules(spec.submodule_search_locations or [] if spec else []):
        if not module.name.startswith("_"):
            name, path = module.name.replace("_", "-"), f"{KINDS[kind]}.{module.name}"
            yield Component(kind, name, "nfops", __version__), path


def _plugins(kind: str) -> Iterator[_Found]:
    """The entry points of every distribution; not `importlib.metadata.entry_points`, where a bad file hurts all."""
    seen = set()
    for distribution in distributions():
        if f"[{KINDS[kind]}]" not in (distribution.read_text("entry_points.txt") or ""):
            continue
        try:
            owner, found = distribution.metadata["Name"], list(_entries(kind, distribution))
        except Exception as error:
            owner = distribution.metadata["Name"]
            found = [(Component(kind, owner, owner, "", f"unreadable entry_points.txt: {_one_line(error)}"), "")]
        if owner not in seen:  # sys.path may hold a distribution twice; Python imports the first
            yield from found
        seen.add(owner)


def _entries(kind: str, distribution: Distribution) -> Iterator[_Found]:
    owner, version = distribution.metadata["Name"], distribution.version
    for point in distribution.entry_points:
        if point.group == KINDS[kind]:
            yield Component(kind, point.name, owner, version, _misnamed(point)), point.value


def _misnamed(point: EntryPoint) -> str:
    if not COMPONENT_NAME.fullmatch(point.name):
        return "a component's name has lower-case letters, digits and hyphens only"
    if not all(part.isidentifier() for part in point.value.split(".")):
        return f"the entry point must name a module, got {point.value}"
    return ""


def _tried(component: Component, module: str) -> Component:
    if component.error or component.distribution == "nfops":
        return component
    try:
        _load(component, module)
    except ComponentError as error:
        return replace(component, error=error.what)
    return component


def _load(component: Component, module: str) -> LoadedComponent:
    where, owner = f"{component.kind} {component.name}", component.distribution
    if component.error:
        raise ComponentError(where, component.error)
    try:
        imported = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a plugin may do anything while it is imported
        raise ComponentError(where, f"cannot be imported from {owner}: {_one_line(error)}") from error
    config, cls = getattr(imported, "Config", None), getattr(imported, component.kind.capitalize(), None)
    if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        raise ComponentError(where, f"{module} ({owner}) defines no dataclass Config")
    if not isinstance(cls, type):
        raise ComponentError(where, f"{module} ({owner}) defines no class {component.kind.capitalize()}")
    try:
        describe(config)
    except (TypeError, NameError, IndexError) as error:
        raise ComponentError(where, f"Config of {module} ({owner}): {_one_line(error)}") from error
    return LoadedComponent(config, cls)


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
