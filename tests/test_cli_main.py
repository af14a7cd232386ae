"""The command `nfops`: what it imports, how it finds its subcommands, and the small ones: info, plugins, recipes."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from nfops import __version__
from nfops.cli import info
from nfops.cli.main import SUMMARIES, LazyGroup, load_command, load_module, main

HEAVY = {
    "onnx",
    "onnxruntime",
    "onnxscript",
    "torch",
    "scipy",
    "SimpleITK",
    "nibabel",
    "numpy",
    "rich",
    "sklearn",
    "matplotlib",
    "yaml",
    "pydicom",
    "highdicom",
}


def nfops(*argv: str) -> Result:
    return CliRunner().invoke(main, argv, prog_name="nfops")


def modules_after(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter has imported after `code`."""
    code = f"{code}\nimport sys; print('\\n', *sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


HELP = "import sys; sys.argv = ['nfops', '--help']\nfrom nfops.cli.main import run\ntry: run()\nexcept SystemExit: pass"


def test_help_imports_nothing_heavy():
    found = modules_after(HELP)
    assert {"click", "nfops"} <= found
    assert not found & HEAVY


def test_completion_lists_the_commands_without_importing_them():
    ctx = click.Context(main)
    assert isinstance(main, LazyGroup)
    assert [item.value for item in main.shell_complete(ctx, "re")] == ["recipes", "resample"]


@pytest.mark.parametrize("name", SUMMARIES)
class TestEveryCommand:
    def test_is_found_with_its_summary_help_and_examples(self, name):
        command = load_command(name)
        assert command.get_short_help_str(limit=200).removesuffix(".") == SUMMARIES[name]
        assert command.epilog
        examples = load_module(name).EXAMPLES
        assert len(examples) >= 2
        assert all("nfops" in line and "\n" not in line for _, line in examples)

    def test_help_is_one_screen(self, name):
        shown = nfops(name, "--help")
        assert shown.exit_code == 0
        assert len(shown.output.splitlines()) <= 60
        assert "Examples:" in shown.output

    def test_module_does_not_import_numpy(self, name):
        """Else `--nthreads` would come too late: NumPy's libraries read the environment once."""
        found = modules_after(f"import nfops.cli.{name.replace('-', '_')}")
        assert not found & HEAVY


def test_every_command_file_is_in_the_table():
    others = {"__init__", "main", "errors", "options", "progress", "manual"}
    folder = Path(info.__file__).parent
    names = {p.stem.replace("_", "-") for p in folder.glob("*.py") if p.stem not in others}
    with_command = {n for n in names if "\ndef command(" in (folder / f"{n.replace('-', '_')}.py").read_text()}
    assert with_command == set(SUMMARIES)


def test_version_and_citations():
    assert nfops("--version").output == f"nfops {__version__}\n"
    assert "NOIR" in nfops("--cite").output


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_every_command(flag):
    shown = nfops(flag)
    assert shown.exit_code == 0
    assert all(name in shown.output for name in SUMMARIES)


def test_python_m_nfops():
    done = subprocess.run([sys.executable, "-m", "nfops", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"nfops {__version__}\n"


def test_wrong_command_is_met_with_the_right_one():
    with pytest.raises(click.UsageError, match="did you mean resample"):
        main.main(["resampel"], standalone_mode=False)


# --- info --------------------------------------------------------------------------------------------------------


def a_document(path: Path, _frame: object) -> dict[str, object]:
    return {"kind": "image", "path": str(path), "shape": [4, 5, 6], "spacing_mm": [0.5, 1, 2], "warnings": ["odd"]}


@pytest.fixture
def described(monkeypatch):
    import nfops.io

    monkeypatch.setattr(nfops.io, "describe_image", a_document, raising=False)


@pytest.mark.usefixtures("described")
def test_info_prints_text_and_puts_warnings_on_stderr():
    shown = nfops("info", "a.nii")
    assert shown.stdout.splitlines() == [
        "a.nii",
        "  kind             image",
        "  shape            4 5 6",
        "  spacing_mm       0.5 1 2",
    ]
    assert shown.stderr == "a.nii: warning: odd\n"
    assert nfops("info", "-q", "a.nii").stderr == ""


@pytest.mark.usefixtures("described")
def test_info_json_is_a_list_only_for_several_files():
    assert json.loads(nfops("info", "--json", "a.nii").stdout)["shape"] == [4, 5, 6]
    assert [each["path"] for each in json.loads(nfops("info", "--json", "a", "b").stdout)] == ["a", "b"]


def test_info_knows_a_bundle(tmp_path, monkeypatch):
    from nfops import bundle as module

    (tmp_path / "manifest.json").touch()
    bundle = module.Bundle("brain", {}, {}, {}, operator={"form": "affine"}, digest="abc")
    monkeypatch.setattr(module, "load_bundle", lambda _: bundle)
    shown = json.loads(nfops("info", "--json", str(tmp_path)).stdout)
    expected = {
        "kind": "bundle",
        "path": str(tmp_path),
        "name": "brain",
        "sha256": "abc",
        "operator": {"form": "affine"},
    }
    assert {key: shown[key] for key in expected} == expected
    assert "  operator         form: affine" in nfops("info", str(tmp_path)).stdout.splitlines()


@pytest.mark.parametrize("text", ["{", "[]"])
def test_info_refuses_a_broken_manifest(tmp_path, text):
    from nfops.errors import BundleError

    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"manifest\.json"):
        info.describe(tmp_path)


def test_info_validates_a_recipe(tmp_path):
    from nfops.errors import RecipeError

    recipe = tmp_path / "r.yaml"
    recipe.write_text("nmae: typo\n")
    with pytest.raises(RecipeError, match="nmae"):
        info.describe(recipe)


def test_info_names_a_valid_recipe(shipped):
    document = info.describe(shipped)
    assert (document["kind"], document["name"], document["dims"]) == ("recipe", "brain", 2)


# --- plugins, recipes --------------------------------------------------------------------------------------------


def test_plugins_lists_the_linear_operator():
    found = json.loads(nfops("plugins", "operator", "--json").stdout)
    assert "linear" in {each["name"] for each in found}
    assert set(found[0]) == {"kind", "name", "distribution", "version", "error"}
    assert "linear" in nfops("plugins").stdout


RECIPE = """\
name: brain
description: a test, 5 µm
data: {source: "a/{id}.nii", target: "b/{id}.nii"}
geometry: {dims: 2, grid: {shape: [8, 8]}}
source: {intensity: {map: percentile}, field: {backbone: fpca, latent: 2}}
target: {intensity: {map: percentile}, field: {backbone: fpca, latent: 2}}
operator: {backend: linear}
"""


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    import nfops.shipped

    recipe = tmp_path / "shipped" / "brain.yaml"
    recipe.parent.mkdir()
    recipe.write_text(RECIPE, encoding="utf-8")
    monkeypatch.setattr(nfops.shipped, "shipped_recipes", lambda: {"brain": recipe})
    monkeypatch.chdir(tmp_path)
    return recipe


@pytest.mark.usefixtures("shipped")
def test_recipes_list_and_show():
    assert nfops("recipes", "list").stdout.split(maxsplit=1) == ["brain", "a test, 5 µm\n"]
    assert json.loads(nfops("recipes", "list", "--json").stdout)[0]["description"] == "a test, 5 µm"
    assert nfops("recipes", "show", "brain").stdout == RECIPE


def test_recipes_copy_refuses_to_overwrite(shipped, tmp_path):
    from nfops.errors import OutputError

    assert nfops("recipes", "copy", "brain").exit_code == 0
    copy = tmp_path / "brain.yaml"
    assert copy.read_bytes() == shipped.read_bytes()
    copy.write_text("mine")
    refused = nfops("recipes", "copy", "brain")
    assert isinstance(refused.exception, OutputError)
    assert copy.read_text() == "mine"
    assert nfops("recipes", "copy", "--force", "brain", "brain.yaml").exit_code == 0
    assert copy.read_bytes() == shipped.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["brain.yaml", "shipped"]


@pytest.mark.usefixtures("shipped")
def test_recipes_copy_into_no_folder_is_an_output_error():
    from nfops.errors import OutputError

    assert isinstance(nfops("recipes", "copy", "brain", "no/such/folder.yaml").exception, OutputError)


@pytest.mark.usefixtures("shipped")
def test_recipes_wrong_name_is_met_with_the_right_one():
    error = nfops("recipes", "show", "brian").exception
    assert "did you mean" in str(error)
