"""Methods and data sets from outside: the files of docs/extending.md, loose and in an installed package."""

import json

import outside
import pandas as pd
import pytest
import yaml

from isnet_bench import cli, methods
from isnet_bench import config as configuration
from isnet_bench import data as datasets
from isnet_bench.config import catalog
from isnet_bench.io.errors import BenchError
from isnet_bench.layout import RECORD, Layout
from isnet_bench.methods import catalog as making

PLUGINS = ("partial_swap.py", "summed_isnet.py", "bars.py")
ROWS = ("resnet", "partial_swap", "summed_isnet")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of its own with the files of the page, in which the commands are given."""
    outside.save(tmp_path, *outside.FILES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_all(config):
    """Train and test every row of the page's configuration; make its tables and a figure, and return the csv."""
    experiment = ["--config", config, "--experiment", "own_bars"]
    for row in ROWS:
        run = [*experiment, "--row", row, "--seed", "0"]
        assert cli.main(["train", *run]) == 0
        assert cli.main(["evaluate", *run]) == 0
    for verb, *words in (["collect"], ["tables"], ["figures", "--kind", "accuracy"]):
        assert cli.main([verb, *experiment, *words]) == 0
    assert Layout("results/own").figure("own_bars_accuracy", "png").is_file()
    return pd.read_csv(Layout("results/own").table("own_bars", "csv"))


def test_the_files_are_short():
    for name in PLUGINS:
        assert len(outside.FILES[name].splitlines()) <= 60


@pytest.mark.parametrize(
    ("verb", "name"),
    [("check-method", "partial_swap.py"), ("check-method", "summed_isnet.py"), ("check-data", "bars.py")],
)
def test_they_pass_the_checks(folder, capsys, verb, name):
    assert cli.main([verb, name]) == 0
    answer = capsys.readouterr().out
    assert answer.count("holds  ") == len(answer.splitlines()) > 5


def test_a_check_that_fails_says_why(folder, capsys):
    text = (folder / "partial_swap.py").read_text(encoding="utf-8")
    (folder / "careless.py").write_text(text.replace("masks.nan_to_num(1.0)", "masks.clone()"), encoding="utf-8")
    assert cli.main(["check-method", "careless.py"]) == cli.FAILED
    captured = capsys.readouterr()
    assert "FAILS  images without a mask take part in classification: the loss total is nan" in captured.out
    assert captured.out.count("FAILS") == 1
    assert captured.err.endswith("error: 1 of the checks above failed\n")


@pytest.mark.slow
def test_rows_from_outside_stand_in_table_and_figure_like_others(folder):
    table = make_all("own.yaml")
    assert list(table["method"]) == list(ROWS)
    assert list(table["label"]) == ["Standard classifier", "Partial swap", "Summed ISNet"]
    assert set(table["data"]) == {"bars with a dot"}
    assert table[["iid_accuracy_mean", "deceiving_accuracy_mean", "background_relevance_mean"]].notna().all(axis=None)
    assert datasets.publishable("bars", "bars", PLUGINS)


def test_a_broken_file_names_itself_and_stops_nothing_else(folder, caplog):
    (folder / "broken.py").write_text("import nothing_such")
    given = yaml.safe_load((folder / "own.yaml").read_text(encoding="utf-8"))
    given["plugins"].insert(0, "broken.py")
    config = configuration.check(given, "own.yaml")
    assert methods.get("partial_swap", config.plugins).label == "Partial swap"
    reason = "ModuleNotFoundError: No module named 'nothing_such'"
    assert f"broken.py cannot be used ({reason})" in caplog.text
    with pytest.raises(BenchError, match=r"unknown method 'brocken'; .*broken\.py cannot be used \(ModuleNotFound"):
        methods.get("brocken", config.plugins)
    given["experiments"]["own_bars"]["methods"]["brocken"] = {}
    with pytest.raises(BenchError, match=rf"unknown method 'brocken'; .*broken\.py could not be read: {reason}"):
        configuration.check(given, "own.yaml")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("METHOD = 3", "TypeError: METHOD must be a baselines.base.Method, not 3"),
        ("from baselines.rrr import METHOD", "ValueError: its method 'rrr' has the name of that of baselines.rrr"),
        ("raise SystemExit('no')", "SystemExit: no"),
        ("def", "SyntaxError: invalid syntax"),
        ("", "it defines no METHOD"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, text, reason):
    (tmp_path / "mine.py").write_text(text)
    known = methods.known((str(tmp_path / "mine.py"),))
    with pytest.raises(BenchError) as caught:
        known.of(str(tmp_path / "mine.py"), "METHOD")
    assert f"mine.py cannot be used ({reason}" in str(caught.value)
    assert known["rrr"] is methods.get("rrr")


def test_a_file_that_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["check-data", "nothing.py"]) == cli.FAILED
    assert "nothing.py cannot be used (ValueError: there is no such Python file)" in capsys.readouterr().err


@pytest.fixture
def package(folder, monkeypatch):
    """The same files as a package, as pip would install it."""
    site = folder / "site"
    (site / "my_package").mkdir(parents=True)
    (site / "my_package" / "__init__.py").touch()
    for name in PLUGINS:
        (folder / name).rename(site / "my_package" / name)
    told = site / "my_package-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text(
        "[isnet_bench.methods]\npartial_swap = my_package.partial_swap\n"
        "summed = my_package.summed_isnet:METHOD\n[isnet_bench.data]\nbars = my_package.bars\n"
    )
    given = yaml.safe_load((folder / "own.yaml").read_text(encoding="utf-8"))
    del given["plugins"]
    (folder / "own.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=":")
    for cached in (methods.known, datasets.known, catalog._ask):
        cached.cache_clear()
    yield folder
    for cached in (methods.known, datasets.known, catalog._ask):
        cached.cache_clear()


@pytest.mark.slow
def test_an_installed_package_offers_them_by_entry_points(package):
    assert list(make_all("own.yaml")["method"]) == list(ROWS)
    record = Layout("results/own").run("own_bars", "partial_swap", 0) / RECORD
    assert json.loads(record.read_text())["hyperparameters"] == {"share": 0.5}


# --- the catalogue ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", making.files(), ids=lambda path: path.name)
def test_generated_files_are_fresh(path):
    assert path.read_text(encoding="utf-8") == making.files()[path], "make schema"


@pytest.mark.usefixtures("folder")
def test_the_catalogue_tells_of_files_outside(capsys):
    assert cli.main(["catalog", "--plugins", *PLUGINS]) == 0
    told = json.loads(capsys.readouterr().out)
    (swap,) = [card for card in told["methods"] if card["name"] == "partial_swap"]
    assert swap["schema"]["properties"]["share"]["maximum"] == 1
    assert "bars" in [card["name"] for card in told["data"]]
    assert told["broken"] == {}


def test_cards_say_what_the_methods_say():
    cards = {card["name"]: card for card in making.cards()["methods"]}
    for name in methods.names():
        method, card = methods.get(name), catalog._card(cards[name])
        assert (card.label, card.family, card.oracle) == (method.label, method.family, method.oracle)
        assert card.groups == method.groups
        needed = method.range is not None and method.range.needed(method.hyperparameters())
        assert (card.range_id({}) is not None) == needed
