"""`nfops doctor` tells what works by trying it, and ends with 6 where something that is there does not."""

import sys

import pytest
from cli_fixtures import nfops
from toy_bundles import make_bundle, make_spec

from nfops import diagnosis
from nfops.bundle import save_bundle
from nfops.diagnosis import examine
from nfops.engines.onnx_sessions import cuda_fault


def findings(folder) -> dict[str, diagnosis.Finding]:
    return {each.topic: each for each in examine(folder)}


def test_it_names_versions_devices_decoders_and_bundles():
    ran = nfops("doctor", "--json")
    assert ran.code == 0, ran.out
    found = {each["topic"]: each for each in ran.document}
    assert found["torch"]["is_fine"]
    assert found["onnxruntime on the CPU"]["what"] == "CPUExecutionProvider"
    assert found["DICOM in RLE"]["is_fine"]
    assert "onnx on cpu" in found["bundle brain_t1t2"]["what"]
    assert "numpy on cpu" in found["bundle brain_t1t2_latent"]["what"]
    assert "bundle hippocampus" in found
    assert "ok " in nfops("doctor").out


@pytest.mark.skipif(not cuda_fault("cuda"), reason="this machine has CUDA")
def test_cuda_that_does_not_load_is_told_and_a_fault_only_beside_a_gpu(tmp_path, monkeypatch):
    assert findings(tmp_path)["onnxruntime on CUDA"].is_fine is None
    monkeypatch.setattr("nfops.engines.onnx_sessions.DRIVERS", (str(tmp_path),))
    found = findings(tmp_path)["onnxruntime on CUDA"]
    assert found.is_fine is False
    assert found.what


def test_c65_two_onnxruntimes_are_a_fault(monkeypatch):
    monkeypatch.setattr("nfops.engines.onnx_sessions._is_installed", lambda name: True)
    ran = nfops("doctor")
    assert ran.code == 6
    assert "both installed and overwrite each other" in ran.out


def test_a_library_that_cannot_be_imported_hurts_only_itself(tmp_path, monkeypatch):
    for name in ("torch", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("nfops.engines.onnx_sessions", "nfops.onnx_runtime"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(diagnosis.importlib.util, "find_spec", lambda name: None if name == "onnx" else name)
    found = findings(tmp_path)
    assert found["onnx"].what == "is not installed"
    assert "cannot be imported" in found["torch"].what
    assert "cannot be imported" in found["onnxruntime"].what
    assert found["numpy"].is_fine


def test_a_damaged_bundle_is_a_fault(tmp_path):
    save_bundle(make_bundle(make_spec(2)), tmp_path / "toy", force=False)
    assert findings(tmp_path)["bundle toy"].what == "runs by numpy on cpu"
    (tmp_path / "toy" / "source.safetensors").write_bytes(b"")
    found = findings(tmp_path)["bundle toy"]
    assert found.is_fine is False
    assert "damaged or changed" in found.what
