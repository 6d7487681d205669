"""Digests of code: what a method's results depend on, and what they do not."""

import shutil
from pathlib import Path

import pytest

from isnet_bench import config as configuration
from isnet_bench.io import code


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A copy of the project's packages, in place of the project."""
    for package in ("isnet", "baselines", "isnet_bench"):
        shutil.copytree(code.ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "ROOT", tmp_path)
    return tmp_path


def digests():
    """Of every built-in method and data set, by name."""
    known = configuration.Config().catalog
    return {name: card.code for kind in (known.methods, known.data) for name, card in kind.items()}


def changed(path, old="", new="", more="\nCHANGED = 1\n"):
    """Change a file; return of what the digests are then others."""
    before, text = digests(), path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new) + more, encoding="utf-8")
    return {name for name, digest in digests().items() if digest != before[name]}


ISNETS = {"original_isnet", "dual_isnet", "selective_isnet", "stochastic_isnet"}
DATA = set(configuration.Config().catalog.data)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("baselines/rrr.py", {"rrr"}),
        ("baselines/unet.py", {"multitask_unet", "unet_classifier", "unet_swap"}),
        ("isnet_bench/methods/isnets.py", ISNETS),
        ("isnet_bench/data/phantom/anatomy.py", {"phantom", "xray"}),
        ("isnet_bench/data/mnist/__init__.py", {"mnist"}),
        ("isnet_bench/data/mnist/digits.py", {"mnist", "decoy_mnist", "colored_mnist"}),
        ("isnet_bench/io/errors.py", set()),
    ],
)
def test_a_change_counts_for_what_imports_it_and_for_nothing_else(project, file, expected):
    assert changed(project / file) == expected


def test_the_engines_count_for_the_isnets_and_not_for_what_only_names_the_losses(project):
    found = changed(project / "isnet" / "flex.py")
    assert found >= ISNETS
    assert not found & {"resnet", "gain", "ham", "rrr", "cdep", "vit", *DATA}


def test_the_base_and_the_backbones_count_for_all_methods(project):
    every = set(digests()) - DATA
    assert changed(project / "baselines" / "base.py") == every
    assert changed(project / "isnet_bench" / "methods" / "backbones.py") == every


def test_comments_docstrings_and_line_breaks_do_not_count(project):
    path = project / "baselines" / "resnet.py"
    assert changed(path, '"""The', '"""Of old: the', more="\n\n# Said again.\n") == set()
    assert changed(path, "BackboneClassifier", "BackboneClassifier ", more="") == set()


def test_a_plug_in_counts_with_its_neighbours(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    method, helper = tmp_path / "mine.py", tmp_path / "helper.py"
    method.write_text("import torch\nfrom baselines.resnet import METHOD\nimport helper\n")
    helper.write_text("WEIGHT = 1\n")
    before = code.digest([str(method)])
    helper.write_text("WEIGHT = 0  # changed\n")
    assert code.digest([str(method)]) != before
    # The same files elsewhere are the same code.
    after = code.digest([str(method)])
    (tmp_path / "elsewhere").mkdir()
    for file in (method, helper):
        shutil.copy(file, tmp_path / "elsewhere")
    assert code.digest([str(tmp_path / "elsewhere" / "mine.py")]) == after


def test_code_that_is_no_python_counts_by_its_bytes(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("def (")
    first = code.digest([str(path)])
    path.write_text("def ((")
    assert code.digest([str(path)]) != first


def test_each_imported_module_of_a_built_in_method_is_found():
    """What Python itself imports of the project for a method, but for what says of itself that it has no effect."""
    import subprocess
    import sys

    told = "import sys, baselines.gain; print(*(m.__file__ for n, m in sys.modules.items() if n[:9] == 'baselines'))"
    loaded = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout.split()
    found, todo = set(), [code.ROOT / "baselines" / "gain.py"]
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += code._read(path, 0)[1]
    assert {Path(name) for name in loaded if not name.endswith("__init__.py")} <= found
