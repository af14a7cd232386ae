"""The folder is the registry; plugins by entry point; a broken one hurts only its caller (C37)."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nfops.errors import ComponentError
from nfops.registry import KINDS, list_components, load_component

GOOD = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Config:
    width: int = 3

class Operator:
    pass
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """A distribution on sys.path: its metadata, one entry point, the module that this names."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(distribution: str, point: str, source: str = GOOD) -> None:
        info = tmp_path / f"{distribution}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[nfops.operators]\n{point}\n")
        module = point.rpartition("=")[2].strip()
        if module.isidentifier():
            (tmp_path / f"{module}.py").write_text(source)
            monkeypatch.delitem(sys.modules, module, raising=False)

    return install


def listed(name: str) -> list[str]:
    return [component.error for component in list_components("operator") if component.name == name]


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_is_the_registry(kind: str) -> None:
    folder = Path(__file__).parents[1] / KINDS[kind].replace(".", "/")
    names = {path.stem.replace("_", "-") for path in folder.glob("*.py") if not path.stem.startswith("_")}
    found = [component for component in list_components(kind) if component.distribution == "nfops"]
    assert {component.name for component in found} == names
    assert all(component.error == "" for component in found)


def test_listing_imports_no_torch() -> None:
    code = "import sys, nfops.registry as r; [r.list_components(k) for k in r.KINDS]; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_a_plugin(install: Install) -> None:
    install("acme", "acme-mlp = acme_mlp_plugin")
    (found,) = [component for component in list_components("operator") if component.name == "acme-mlp"]
    assert (found.kind, found.distribution, found.version, found.error) == ("operator", "acme", "1.2", "")
    loaded = load_component("operator", "acme-mlp")
    assert loaded.config().width == 3
    assert loaded.cls.__name__ == "Operator"


def test_c37_unknown_name(install: Install) -> None:
    install("acme", "acme-mlp = acme_mlp_unknown")
    with pytest.raises(ComponentError) as caught:
        load_component("operator", "acme-mpl")
    assert caught.value.message.startswith('operator acme-mpl: not installed (did you mean "acme-mlp"? installed: ')


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import no_such_module_xyz", "cannot be imported from acme: ModuleNotFoundError: No module named"),
        ("raise ValueError('two\\nlines')", "cannot be imported from acme: ValueError: two lines"),
        ("import sys; sys.exit(3)", "cannot be imported from acme: SystemExit: 3"),
        ("def f(:", "cannot be imported from acme: SyntaxError"),
        ("x = 1", "acme_broken (acme) defines no dataclass Config"),
        (GOOD.replace("Operator", "Opreator"), "acme_broken (acme) defines no class Operator"),
        (GOOD.replace("width: int = 3", "width: complex = 3"), "settings cannot be of type <class 'complex'>"),
        (GOOD.replace("width: int = 3", "width: 'Nowhere' = 3"), "NameError"),
    ],
)
def test_c37_a_broken_plugin_hurts_only_its_caller(install: Install, source: str, what: str) -> None:
    install("acme", "broken = acme_broken", source)
    install("other", "fine = other_fine_plugin")
    assert what in listed("broken")[0]
    assert load_component("operator", "fine")
    with pytest.raises(ComponentError) as caught:
        load_component("operator", "broken")
    assert what in caught.value.message
    assert "\n" not in caught.value.message


def test_two_plugins_of_one_name_clash(install: Install) -> None:
    install("acme", "same = acme_same")
    install("other", "same = other_same")
    assert listed("same") == ["name clash between acme, other: uninstall all but one"] * 2
    with pytest.raises(ComponentError, match="clash between acme, other"):
        load_component("operator", "same")


def test_a_plugin_cannot_replace_a_built_in(install: Install) -> None:
    install("acme", "linear = acme_linear")
    with pytest.raises(ComponentError, match="clash between acme, nfops"):
        load_component("operator", "linear")


@pytest.mark.parametrize(
    "point", ["Bad_Name = acme_named", "bad = acme_named:Operator", "bad = ../x", "no equals sign"]
)
def test_bad_entry_points_are_listed(install: Install, point: str) -> None:
    install("acme", point)
    install("other", "fine = other_fine_too")
    errors = [component.error for component in list_components("operator") if component.distribution == "acme"]
    assert len(errors) == 1
    assert errors[0]
    assert load_component("operator", "fine")


def test_a_distribution_on_the_path_twice(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("acme", "twice = acme_twice")
    link = tmp_path / "again"
    link.mkdir()
    for part in tmp_path.glob("acme*"):
        (link / part.name).symlink_to(part)
    monkeypatch.syspath_prepend(str(link))
    assert listed("twice") == [""]
