import subprocess
import sys

import pytest

from isnet_bench.io import torchvision_shim


def run(code):
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stderr


def test_the_library_imports_torch_alone():
    run("import isnet, sys; assert not {'torchvision', 'timm', 'lightning', 'pandas', 'pydantic'} & sys.modules.keys()")


@pytest.mark.slow
def test_the_shim_imports_nothing_by_itself_and_torchvision_can_be_imported_after_it():
    run(
        "import sys; from isnet_bench.io import torchvision_shim; assert 'torch' not in sys.modules;"
        "torchvision_shim.ensure(); assert 'torchvision' not in sys.modules;"
        "from torchvision import models, transforms; torchvision_shim.ensure()"
    )


@pytest.mark.slow
def test_modules_that_need_torchvision_call_the_shim():
    for module in ("baselines.vit", "isnet_bench.methods.backbones", "isnet_bench.data.mnist", "isnet_bench.training"):
        run(f"import {module}")
    run("from isnet_bench.training import fit, train, segmentation")


def test_an_extension_that_loads_gets_no_second_declaration(monkeypatch, tmp_path):
    import torch

    declared, package = [], tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / f"_C{torchvision_shim.EXTENSION_SUFFIXES[-1]}").touch()
    spec = type("Spec", (), {"origin": str(package / "__init__.py")})
    monkeypatch.setattr(torchvision_shim.sys, "modules", {"torch": torch})
    monkeypatch.setattr(torch.ops, "torchvision", object(), raising=False)
    monkeypatch.setattr(torchvision_shim, "find_spec", lambda name: spec)
    monkeypatch.setattr(torch.library, "define", lambda name, schema: declared.append(name))
    monkeypatch.setattr(torch.ops, "load_library", lambda path: None)
    torchvision_shim.ensure()
    assert not declared

    def fail(path):
        raise OSError("libcudart.so is missing")

    monkeypatch.setattr(torch.ops, "load_library", fail)
    torchvision_shim.ensure()
    assert declared == ["torchvision::nms", "torchvision::qnms"]
