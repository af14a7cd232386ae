"""Writing NIfTI: one affine, the dtype that was asked for, nothing that cannot be read again."""

import struct
from dataclasses import replace

import nibabel
import numpy as np
import pytest
from nifti_files import OBLIQUE, QFORM, make, some
from scipy.spatial.transform import Rotation

from nfops.errors import OutputError, ResultError, UsageError
from nfops.grid import Grid
from nfops.image import Header, Image
from nfops.io import SaveOptions, load_image, save_image, save_slabs


@pytest.mark.parametrize("code", [1, 2, 3, 4])
def test_b3_both_forms_from_one_affine_with_the_inputs_code(tmp_path, code):
    image = load_image(make(tmp_path / "a.nii", {QFORM: ("2h", code, code)}))
    save_image(tmp_path / "o.nii", image)
    header = nibabel.load(tmp_path / "o.nii").header
    assert (header["sform_code"], header["qform_code"]) == (code, code)
    assert np.allclose(header.get_sform(), header.get_qform(), atol=1e-5)
    assert np.allclose(header.get_sform(), OBLIQUE, atol=1e-5)
    assert load_image(tmp_path / "o.nii").header.warnings == ()


def test_b4_shear_has_no_qform(tmp_path):
    affine = OBLIQUE.copy()
    affine[1, 2] += 0.5
    warnings = save_image(tmp_path / "o.nii", Image(np.zeros((1, 5, 4, 3), np.float32), Grid((5, 4, 3), affine)))
    assert "sheared" in warnings[0]
    header = nibabel.load(tmp_path / "o.nii").header
    assert (header["sform_code"], header["qform_code"]) == (1, 0)
    assert np.allclose(load_image(tmp_path / "o.nii").grid.affine, affine, atol=1e-6)


def test_b4_no_rotation_makes_our_own_files_disagree_with_themselves(tmp_path):
    for seed in range(30):
        affine = np.eye(4)
        affine[:3, :3] = Rotation.random(random_state=seed).as_matrix() @ np.diag([0.7, 0.7, 2])
        grid = Grid((512, 2, 101), affine)
        save_image(tmp_path / "o.nii", Image(np.zeros((1, *grid.shape), np.float32), grid), SaveOptions(force=True))
        image = load_image(tmp_path / "o.nii")
        assert image.header.warnings == ()
        assert image.grid.same_as(grid)


def test_b1_a_guessed_position_is_not_written(tmp_path):
    grid = Grid((5, 4, 3), np.diag([2.0, 3, 4, 1]))
    image = Image(np.zeros((1, 5, 4, 3), np.float32), grid, Header(is_oriented=False))
    save_image(tmp_path / "o.nii", image)
    header = nibabel.load(tmp_path / "o.nii").header
    assert (header["sform_code"], header["qform_code"]) == (0, 0)
    assert header["pixdim"][1:4].tolist() == [2, 3, 4]


def test_b9_dtypes(tmp_path):
    image = some([0.4, 0.6, 254.6], file_dtype="uint8")
    for option, dtype, expected in (
        ("auto", "float32", [0.4, 0.6, 254.6]),
        ("same", "uint8", [0, 1, 255]),
        ("uint16", "uint16", [0, 1, 255]),
        ("float64", "float64", [0.4, 0.6, 254.6]),
    ):
        save_image(tmp_path / "o.nii.gz", image, SaveOptions(option, force=True))
        again = nibabel.load(tmp_path / "o.nii.gz")
        assert again.get_data_dtype() == dtype
        assert np.allclose(np.ravel(again.dataobj), expected)
    with pytest.raises(UsageError, match="float16"):
        SaveOptions("float16")


def test_b9_overflow_publishes_nothing(tmp_path):
    for values, dtype in (([0, 256], "uint8"), ([-1, 2], "uint8"), ([40000, 0], "same")):
        with pytest.raises(ResultError, match=r"do not fit u?int\d+ \("):
            save_image(tmp_path / "o.nii", some(values, file_dtype="int16"), SaveOptions(dtype))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", ["auto", "int16"])
def test_b24_nan_in_an_output_publishes_nothing(tmp_path, value, dtype):
    with pytest.raises(ResultError, match="1 of 2 values"):
        save_image(tmp_path / "o.nii.gz", some([value, 1]), SaveOptions(dtype))
    assert list(tmp_path.iterdir()) == []


def test_b15_long_axes_need_nifti_2(tmp_path):
    save_image(tmp_path / "o.nii.gz", some(np.arange(40000)))
    assert isinstance(nibabel.load(tmp_path / "o.nii.gz"), nibabel.Nifti2Image)
    assert load_image(tmp_path / "o.nii.gz").values.ravel()[-1] == 39999


def test_b14_b17_header_fields_and_repeatable_bytes(tmp_path):
    image = replace(some([1, 2]), header=Header(slice_axis=1, intent=(1002, "labels")))
    contents = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save_image(tmp_path / folder / f"{folder}.nii.gz", image)
        contents.append((tmp_path / folder / f"{folder}.nii.gz").read_bytes())
    assert contents[0] == contents[1]
    header = nibabel.load(tmp_path / "a" / "a.nii.gz").header
    assert header.get_dim_info() == (None, None, 1)
    assert (int(header["intent_code"]), bytes(header["intent_name"].item())) == (1002, b"labels")
    assert bytes(header["descrip"].item()).startswith(b"nfops")
    assert load_image(tmp_path / "a" / "a.nii.gz").header.slice_axis == 1


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_b14_comments_are_kept_and_other_extensions_dropped_with_a_warning(tmp_path, kind, order, name):
    image = kind(np.arange(24, dtype="float32").reshape(2, 3, 4), np.eye(4))
    image = kind(image.dataobj, None, image.header.as_byteswapped(order))
    for code, content in ((6, b"made by hand"), (2, b"Doe^Jane"), (6, "Schädel".encode()), (44, bytes(8))):
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension(code, content))
    image.to_filename(tmp_path / name)
    read = load_image(tmp_path / name)
    assert read.header.comments == (b"made by hand", "Schädel".encode())
    (warning,) = [text for text in read.header.warnings if "extension" in text]
    assert "DICOM, MATLAB" in warning
    save_image(tmp_path / f"copy_{name}", read)
    copy = nibabel.load(tmp_path / f"copy_{name}")
    assert [(e.get_code(), e.get_content().rstrip(b"\0")) for e in copy.header.extensions] == [
        (6, comment) for comment in read.header.comments
    ]
    assert np.array_equal(copy.get_fdata(), read.values[0])
    assert load_image(tmp_path / f"copy_{name}").header.comments == read.header.comments


@pytest.mark.parametrize("size", [0, -16, 8, 17, 4096, 2**31 - 1])
def test_b14_a_damaged_extension_is_dropped_with_a_warning(tmp_path, size):
    image = nibabel.Nifti1Image(np.ones((2, 3, 4), "float32"), np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(6, b"note"))
    image.to_filename(tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into("<i", content, 352, size)
    (tmp_path / "a.nii").write_bytes(content)
    header = load_image(tmp_path / "a.nii").header
    assert header.comments == ()
    assert any("damaged" in text for text in header.warnings)


def test_slabs_are_written_as_they_come(tmp_path):
    values = np.random.default_rng(0).normal(size=(2, 5, 4, 7)).astype(np.float32)
    grid = Grid((5, 4, 7), OBLIQUE)
    slabs = (channel[None, :, :, k : k + 3] for channel in values for k in range(0, 7, 3))
    save_slabs(tmp_path / "o.nii.gz", grid, Header(), slabs, channels=2)
    assert np.array_equal(load_image(tmp_path / "o.nii.gz").values, values)
    for bad in ([values[0, :, :, :3]], [values[0, :4]]):
        with pytest.raises(ResultError):
            save_slabs(tmp_path / "p.nii.gz", grid, Header(), bad)
    assert [p.name for p in tmp_path.iterdir()] == ["o.nii.gz"]


def test_c44_c47_refused_outputs(tmp_path):
    save_image(tmp_path / "o.nii", some([1]))
    with pytest.raises(OutputError, match="--force"):
        save_image(tmp_path / "o.nii", some([2]))
    for name in ("o", "o.nii.tmp", "o.gz", ".nii"):
        with pytest.raises(UsageError, match=r"supported: .nii.gz"):
            save_image(tmp_path / name, some([2]))
