import subprocess
import sys


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)


def test_torchvision_can_be_imported_after_isnet_which_does_not_import_it():
    found = run(
        "import sys, isnet; assert 'torchvision' not in sys.modules; from torchvision import models, transforms"
    )
    assert found.returncode == 0, found.stderr


def test_isnet_can_be_imported_after_torchvision():
    found = run("import isnet._compat, torchvision, sys; del sys.modules['isnet']; import isnet")
    assert found.returncode == 0, found.stderr


def test_an_extension_that_loads_gets_no_second_declaration(monkeypatch, tmp_path):
    from isnet import _compat

    declared, package = [], tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / f"_C{_compat.EXTENSION_SUFFIXES[-1]}").touch()
    monkeypatch.setattr(_compat.sys, "modules", {})
    monkeypatch.setattr(_compat.torch.ops, "torchvision", object(), raising=False)
    monkeypatch.setattr(_compat, "find_spec", lambda name: type("Spec", (), {"origin": str(package / "__init__.py")}))
    monkeypatch.setattr(_compat.torch.library, "define", lambda name, schema: declared.append(name))
    monkeypatch.setattr(_compat.torch.ops, "load_library", lambda path: None)
    _compat.ensure_torchvision_imports()
    assert not declared

    def fail(path):
        raise OSError("libcudart.so is missing")

    monkeypatch.setattr(_compat.torch.ops, "load_library", fail)
    _compat.ensure_torchvision_imports()
    assert declared == ["torchvision::nms", "torchvision::qnms"]
