"""A cohort's table: every way in which it does not fit its recipe is said before anything is computed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from toy_cohorts import write_pictures, write_volumes

from nfops.coding import prepare
from nfops.cohort import load_pairs, read_cohort
from nfops.cohort_samples import cohort_domain, plan_spec
from nfops.errors import InputError, NfopsError, NotFoundError, NothingMatchedError
from nfops.grid import Grid
from nfops.image import Image
from nfops.io import save_image
from nfops.recipe import load_recipe, recipe_from_plain


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "data", count=8)


def read(folder: Path, *overrides: str):
    return read_cohort(load_recipe(folder / "recipe.yaml", overrides), folder)


def edit_table(folder: Path, old: str, new: str) -> None:
    path = folder / "split.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_rows_are_read_in_order(folder):
    cohort = read(folder)
    assert [row.scan_id for row in cohort.rows] == [f"b{n}" for n in range(8)]
    assert cohort.rows[3].patient == "p1"
    assert cohort.rows[3].target == folder / "masks" / "b3.png"
    assert [row.split for row in cohort.with_splits(("val",)).rows] == ["val"] * 6


def test_where_keeps_the_rows_that_match(folder):
    assert [row.scan_id for row in read(folder, "data.where={kind: odd}").rows] == ["b1", "b3", "b5", "b7"]
    assert [row.scan_id for row in read(folder, "data.where={kind: odd, split: train}").rows] == ["b1"]


def test_where_that_keeps_nothing_is_said(folder):
    with pytest.raises(NothingMatchedError, match="none of 8 rows"):
        read(folder, "data.where={kind: green}")


def test_without_a_patient_column_every_row_is_a_patient(folder):
    rows = read(folder, "data.patient=null").rows
    assert [row.patient for row in rows] == [row.scan_id for row in rows]


@pytest.mark.parametrize(
    ("override", "column"),
    [
        ("data.id=name", "name"),
        ("data.patient=who", "who"),
        ("data.split=fold", "fold"),
        ("data.where={colour: red}", "colour"),
        ("data.source=images/{scan}.png", "scan"),
    ],
)
def test_a_missing_column_is_named_beside_those_there_are(folder, override, column):
    with pytest.raises(InputError, match=rf"no column '{column}'.*id, patient, split, kind"):
        read(folder, override)


def test_a_row_with_too_many_cells_does_not_hide_the_message(folder):
    edit_table(folder, "b0,p0,train,even", "b0,p0,train,even,extra")
    with pytest.raises(InputError, match="no column 'colour'"):
        read(folder, "data.where={colour: red}")


def test_an_id_in_two_rows_is_refused(folder):
    edit_table(folder, "b3,p1", "b2,p1")
    with pytest.raises(InputError, match="'b2' stands in two rows"):
        read(folder)


def test_a_patient_in_two_splits_is_refused(folder):
    edit_table(folder, "b1,p0,train", "b1,p0,val")
    with pytest.raises(InputError, match="'p0' is in two splits, train and val"):
        read(folder)


def test_missing_images_are_listed(folder):
    for number in range(7):
        (folder / "masks" / f"b{number}.png").unlink()
    with pytest.raises(InputError, match=r"7 of 16 images are missing: .*b0\.png.*b4\.png") as caught:
        read(folder)
    assert "b5.png" not in str(caught.value)


def test_a_missing_table_says_where_to_look(folder):
    with pytest.raises(NotFoundError, match=r"no such table.*NFOPS_DATA"):
        read(folder, "data.table=other.csv")


@pytest.mark.parametrize("content", [b"", b"id,patient,split,kind\n", b"\xff\xfe\x00id", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_a_table_that_is_none_is_refused(folder, content):
    (folder / "split.csv").write_bytes(content)
    with pytest.raises(NfopsError, match=r"split\.csv"):
        read(folder)


def test_a_byte_order_mark_is_no_part_of_a_column(folder):
    path = folder / "split.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read(folder).rows) == 8


def test_windows_line_ends_change_nothing(folder):
    before = read(folder).rows
    path = folder / "split.csv"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read(folder).rows == before


def test_an_unquoted_path_cannot_leave_by_another_name(folder):
    edit_table(folder, "b7,", "nothing/../../b7,")
    with pytest.raises(InputError, match="missing"):
        read(folder)


def test_pairs_are_on_the_recipes_axes(folder):
    recipe = load_recipe(folder / "recipe.yaml")
    done = []
    pairs = list(load_pairs(recipe, read(folder), done.append))
    assert done == list(range(1, 9))
    assert pairs[0].source.grid.shape == (20, 24, 1)
    assert np.allclose(pairs[0].source.grid.spacing_mm[:2], 2)
    assert pairs[0].source.grid.same_as(pairs[0].target.grid)
    assert set(np.unique(pairs[0].target.values)) == {0, 255}


def test_a_target_elsewhere_is_refused(folder):
    path = folder / "masks" / "b2.png"
    with Picture.open(path) as picture:
        larger = np.pad(np.asarray(picture), 6)
    Picture.fromarray(larger).save(path)
    recipe = load_recipe(folder / "recipe.yaml")
    with pytest.raises(
        InputError, match=r"b2\.png: lies elsewhere than its source b2\.png: .* 12\.0 mm|lies elsewhere"
    ):
        list(load_pairs(recipe, read(folder), lambda done: None))


def test_a_target_of_another_resolution_is_welcome(folder):
    path = folder / "masks" / "b2.png"
    with Picture.open(path) as picture:
        pixels = np.asarray(picture)
    Picture.fromarray(np.repeat(np.repeat(pixels, 2, 0), 2, 1)).save(path, dpi=(25.4, 25.4))  # 1 mm a pixel
    pairs = list(load_pairs(load_recipe(folder / "recipe.yaml"), read(folder), lambda done: None))
    assert pairs[2].target.grid.shape == (40, 48, 1)


def test_volumes_of_a_2d_recipe_give_a_pair_a_slice(tmp_path):
    folder = write_volumes(tmp_path / "data", count=4)
    overrides = ("geometry.dims=2", "geometry.grid.shape=[10, 9]", "data.central_slices=3")
    recipe = load_recipe(folder / "recipe.yaml", overrides)
    pairs = list(load_pairs(recipe, read_cohort(recipe, folder), lambda done: None))
    assert [pair.scan_id for pair in pairs[:4]] == ["v0#3", "v0#4", "v0#5", "v1#3"]
    assert all(pair.source.grid.shape[2] == 1 for pair in pairs)
    whole = [pair for pair in pairs if pair.scan_id.startswith("v0")]
    steps = np.diff([pair.source.grid.centre_mm for pair in whole], axis=0)
    assert np.allclose(np.linalg.norm(steps, axis=1), 3.0)


def test_the_digest_follows_the_files(folder):
    before = read(folder).files_digest()
    assert read(folder).files_digest() == before
    (folder / "images" / "b0.png").write_bytes((folder / "images" / "b1.png").read_bytes())
    assert read(folder).files_digest() != before


def test_a_slice_is_mapped_by_the_intensities_of_its_whole_volume(tmp_path):
    """As `apply` does it: training on a volume's slices and applying to volumes must mean the same by 0 and 1."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 1, (1, 12, 10, 4)).astype(np.float32) * np.array([1, 2, 5, 9], np.float32)
    for name in ("a_source", "a_target"):
        save_image(tmp_path / f"{name}.nii.gz", Image(values, Grid((12, 10, 4), np.diag([-1.0, -1, 2, 1]))))
    (tmp_path / "split.csv").write_text("id,split\na,train\n")
    recipe = recipe_from_plain(
        {
            "name": "volumes",
            "data": {"source": "{id}_source.nii.gz", "target": "{id}_target.nii.gz"},
            "geometry": {"dims": 2, "grid": {"shape": [8, 8]}},
            "source": {"field": {"backbone": "fpca", "latent": 2}},
            "target": {"field": {"backbone": "fpca", "latent": 2}},
            "operator": {"backend": "linear"},
        }
    )
    pairs = list(load_pairs(recipe, read_cohort(recipe, tmp_path), lambda done: None))
    domain, radius = cohort_domain(recipe, pairs, (8, 8))
    spec = plan_spec(recipe, "source", pairs, domain, radius)
    ends = [float(prepare(spec, pair.source, "a", pair.source_scan).scales[0].high[0]) for pair in pairs]
    whole = prepare(spec, pairs[0].source_scan, "a").scales
    assert len(pairs) == 4
    assert ends == pytest.approx([float(scale.high[0]) for scale in whole])


def test_a_scan_in_colour_among_grey_ones_is_named(folder):
    recipe = load_recipe(folder / "recipe.yaml")
    cohort = read_cohort(recipe, folder)
    victim = cohort.rows[3].source
    Picture.open(victim).convert("RGB").save(victim)
    with pytest.raises(InputError, match=rf"{victim.name}: has 3 channels, the first one of the cohort has 1"):
        list(load_pairs(recipe, cohort, lambda done: None))
