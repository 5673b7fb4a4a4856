"""The table of versions."""

import pytest

from bir_core.diffbir.settings import DiffBIRSettings, official_settings
from bir_core.diffbir.versions import (
    VERSIONS,
    DiffBIRVersion,
    find_version,
    official_files,
    official_module,
    version_of_file,
)
from bir_core.errors import BIRError


@pytest.mark.parametrize(
    ("file", "version"),
    [
        ("DiffBIR_v2.1.pt", "v2.1"),
        ("DiffBIR_v2-1.pt", "v2.1"),
        ("diffbir-V21.safetensors", "v2.1"),
        ("v2.pth", "v2"),
        ("v1_general.pth", "v1"),
        ("mine.safetensors", None),
    ],
)
def test_version_by_the_name_of_a_file(file, version):
    assert version_of_file(file) is (None if version is None else VERSIONS[version])


def test_official_facts():
    of_base = {"v1": ("eps", False), "v2": ("eps", False), "v2.1": ("v", True)}
    for name, facts in of_base.items():
        assert (VERSIONS[name].parameterization, VERSIONS[name].zero_snr) == facts
    assert official_settings("v2.1") == DiffBIRSettings()
    assert official_settings("v1") == DiffBIRSettings(sampler="spaced", steps=50, cfg=1.0)
    assert official_settings("v2") == DiffBIRSettings(sampler="spaced", steps=50, cfg=4.0)
    assert official_module("denoise", "v2").name == "SCUNet"
    assert official_module("face", "v2").name == "SwinIR"


def test_a_version_is_a_row(monkeypatch):
    row = DiffBIRVersion(settings={"steps": 7}, file_names=("v3",))
    monkeypatch.setitem(VERSIONS, "v3", row)
    assert official_settings("v3").steps == 7
    assert version_of_file("v3.pth") is row
    with pytest.raises(BIRError, match="none are known; give the files"):
        official_files("sr", "v3")


def test_no_such_version():
    with pytest.raises(BIRError, match="v1, v2, v2.1.*'v9' came"):
        find_version("v9")
