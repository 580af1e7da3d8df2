"""`clickwise doctor`: problems stop something everyone needs, notes do not."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
import torch

from clickwise.machine import OLDEST_TORCH
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


@pytest.mark.parametrize(("version", "says"), [
    ("2.9.1", "older"), ("2.10.0+cu126", "older"), ("1.13.1", "older"), ("2.11.0", ""), ("2.13.0+cpu", ""),
    ("2.13.9", ""), ("2.14.0a0+git1234", "newer"), ("2.14.0", "newer"), ("3.0", "newer"), ("2.100.0", "newer"),
])
def test_a_torch_that_is_not_tested_is_a_note(version, says, clickwise, monkeypatch):
    installed = doctor.version_of
    monkeypatch.setattr(doctor, "version_of", lambda name: version if name == "torch" else installed(name))
    found = doctor.doctor()
    notes = [note for note in found["notes"] if "is tested with torch" in note]
    assert found["problems"] == [] and len(notes) == bool(says)
    if says:
        assert notes[0].startswith(f"clickwise is tested with torch 2.11 to 2.13; torch {version} is {says}")
        assert "pip install 'torch==2.13.*'" in notes[0]
    ran = clickwise("doctor")
    assert ran.code == 0 and ("is tested with torch" in ran.out) == bool(says)


def test_the_installed_torch_is_one_that_is_tested_and_the_oldest_is_that_of_the_package():
    assert not any("is tested with torch" in note for note in doctor.doctor()["notes"])
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert f"torch>={OLDEST_TORCH}" in project["project"]["dependencies"]


def test_torch_that_is_missing_or_another_torch(monkeypatch):
    for has, says in (({}, "emulated"), ({"amx_tile": False, "avx512_bf16": True}, "AVX512-BF16"),
                      ({"amx_tile": True, "avx512_bf16": True}, "AMX")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: has)
        assert doctor.doctor()["devices"]["bf16_on_cpu"].startswith(says)
    monkeypatch.setitem(sys.modules, "torch", None)
    found = doctor.doctor()
    assert (found["devices"], found["engines"]) == ({}, []) and "cannot be loaded" in found["problems"][0]
