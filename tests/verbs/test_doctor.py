"""`clickwise doctor`: problems stop something everyone needs, notes do not."""

from __future__ import annotations

import sys

import pytest
import torch

from clickwise.verbs import doctor


@pytest.fixture
def without(monkeypatch):
    """Packages that are not there."""
    def hide(*names):
        version = doctor.version_of
        monkeypatch.setattr(doctor, "version_of", lambda name: None if name in names else version(name))
    return hide


def test_what_is_optional_is_a_note(clickwise, without):
    without("ibis-framework", "duckdb", "scikit-learn")
    found = doctor.doctor()
    assert found["problems"] == [] and found["packages"]["duckdb"] is None
    notes = "\n".join(found["notes"])
    assert "pip install 'ibis-framework[duckdb]'" in notes and "pip install 'clickwise[test]'" in notes
    assert "reference" in found["engines"] and found["free_disk_bytes"] > 0
    assert clickwise("doctor").code == 0


def test_a_cuda_build_without_a_gpu_is_a_note(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = doctor.doctor()
    assert found["problems"] == [] and any("CUDA 13.0" in note for note in found["notes"])


def test_a_missing_needed_package_is_a_problem(clickwise, without):
    without("pyarrow")
    assert clickwise("doctor").code == 1
    assert any("pip install pyarrow" in problem for problem in doctor.doctor()["problems"])


def test_torch_that_is_missing_or_another_torch(monkeypatch):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert "emulated" in doctor.doctor()["devices"]["bf16_on_cpu"]
    monkeypatch.setitem(sys.modules, "torch", None)
    found = doctor.doctor()
    assert (found["devices"], found["engines"]) == ({}, []) and "cannot be loaded" in found["problems"][0]
