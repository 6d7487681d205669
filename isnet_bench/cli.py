"""The command line: ``python -m isnet_bench VERB``, one verb for each stage of the benchmark."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isnet_bench import config as configuration
from isnet_bench.config import Config
from isnet_bench.io import arguments
from isnet_bench.io.checks import problem_of
from isnet_bench.io.errors import BenchError
from isnet_bench.layout import INFO, RECORD, Layout

if TYPE_CHECKING:
    from isnet_bench.training.runs import Job

log = logging.getLogger(__name__)

FAILED = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process where absent.

    Returns
    -------
    int
        The exit status: 0, or 2 after an error of the user's, which is one line on stderr.
    """
    args = parser().parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    for package in ("isnet", "baselines", "isnet_bench"):
        logging.getLogger(package).setLevel(logging.INFO)
    try:
        config = configuration.load(args.config, getattr(args, "results", None)) if "config" in args else Config()
        args.run_verb(args, config, Layout(getattr(args, "results", None) or config.results))
    except BenchError as error:
        sys.stderr.write(f"error: {error}\n")
        return FAILED
    return 0


# Each verb imports its own stage: a table needs no trainer, and the trainer's imports alone take seconds.


def _manifest(args: argparse.Namespace, config: Config, layout: Layout) -> None:
    from isnet_bench.data.builders import assembly

    if (args.collection is None or args.folder is None) == (args.combine is None):
        raise BenchError("manifest needs either --collection and --folder, or --combine")
    if args.combine:
        assembly.combine(args.combine, args.out)
        return
    given = {key: getattr(args, key) for key in ("split", "val_share", "test_iid_share", "part", "views", "masked")}
    given |= {"labels": dict(args.map), "limit": args.limit, "seed": args.seed}
    settings = configuration.fill(assembly.Settings, given, "manifest")
    assembly.build(args.collection, args.folder, args.out, settings)


def _prepare(args: argparse.Namespace, config: Config, layout: Layout) -> None:
    from isnet_bench import data

    data.prepare(args.experiment, config, args.out or layout.data(args.experiment), args.files)


def _segment(args: argparse.Namespace, config: Config, layout: Layout) -> None:
    from isnet_bench.training import segmentation

    segmentation.segment(config, args.out or layout.segment())


def _range(args: argparse.Namespace, config: Config, layout: Layout) -> None:
    range_id = config.range_id(args.experiment, args.row)
    if range_id is None:
        raise BenchError(f"row {args.row} of experiment {args.experiment} needs no relevance range")
    out = args.out or layout.range(args.experiment, range_id, args.seed)
    _measure(_job(args, config, layout), layout, out, args.classifier)


def _train(args: argparse.Namespace, config: Config, layout: Layout) -> None:
    from isnet_bench.training import train as training

    range_id, measured = config.range_id(args.experiment, args.row), None
    job = _job(args, config, layout)
    if range_id is not None:
        measured = args.range or layout.range(args.experiment, range_id, args.seed)
        if args.range is None and not measured.is_file():
            log.info("%s is not there yet, so the relevance range is measured first", measured)
            _measure(job, layout, measured)
    training.train(job, args.out or layout.run(args.experiment, args.row, args.seed), measured)


def _measure(job: Job, layout: Layout, out: Path, classifier: Path | None = None) -> None:
    """Measure a relevance range; the classifier of the layout is trained first where it is not there."""
    from isnet_bench.training import ranges

    if classifier is None:
        classifier = layout.range_classifier(job.experiment, job.seed)
        if not (classifier / RECORD).is_file():
            log.info("%s is not there yet, so this classifier is trained first", classifier)
            ranges.train_classifier(job, classifier)
    ranges.measure(job, classifier, out)


def _evaluate(args: argparse.Namespace, config: Config, layout: Layout) -> None:
    from isnet_bench.evaluation import evaluate as evaluation

    stage = {"evaluate": evaluation.evaluate, "mediate": evaluation.mediate}[args.verb]
    stage(_job(args, config, layout), args.run or layout.run(args.experiment, args.row, args.seed))


def _job(args: argparse.Namespace, config: Config, layout: Layout) -> Job:
    """Return the run that is meant; the data of the layout are prepared first where they are not there."""
    from isnet_bench import data
    from isnet_bench.training.runs import Job

    folder = args.data or layout.data(args.experiment)
    if args.data is None and not (folder / INFO).is_file():
        log.info("%s holds no data yet, so they are prepared first", folder)
        data.prepare(args.experiment, config, folder)
    return Job(config, args.experiment, args.row, args.seed, folder)


def _catalog(args: argparse.Namespace, config: Config, layout: Layout) -> None:
    from isnet_bench.methods import catalog

    if args.verb == "schema":
        catalog.write()
    else:
        sys.stdout.write(json.dumps(catalog.cards(tuple(args.plugins))) + "\n")


def _check(args: argparse.Namespace, config: Config, layout: Layout) -> None:
    """Say of each check, as it is done, whether it holds."""
    if args.verb == "check-run":
        results = _rehearse(config, args.share)
    elif args.verb == "check-config":
        from isnet_bench.methods import settings

        results = settings.check(config)
    elif args.verb == "check-method":
        from isnet_bench.methods import conformance as methods

        results = methods.check(args.file)
    else:
        from isnet_bench.data import conformance as data

        results = data.check(args.file, args.settings)
    failed = 0
    for check, problem in results:
        failed += bool(problem)
        sys.stdout.write(f"{'FAILS' if problem else 'holds'}  {check}{f': {problem}' if problem else ''}\n")
        sys.stdout.flush()
    if failed:
        raise BenchError(f"{failed} of the checks above failed")


def _rehearse(config: Config, share: tuple[int, int]) -> Iterator[tuple[str, str]]:
    """Go through each experiment's jobs on very few images: yield what was done, and what was wrong."""
    from isnet_bench.data.images import made_up

    small, seed = configuration.rehearsal(config, *share), config.seeds[0]
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder, "results"))
        for experiment, section in small.experiments.items():
            base = {"experiment": experiment, "study": None, "seed": seed, "data": None, "range": None, "out": None}
            jobs = [
                (row, stage, verb)
                for row in section.rows
                for stage, verb in ((_train, "train"), (_evaluate, "evaluate"))
            ]
            with made_up.standing_in(section.data, Path(folder, "data", experiment), configuration.FEW["images"]):
                for row, stage, verb in [*jobs, (None, _collect, "collect"), (None, _report, "tables")]:
                    args = argparse.Namespace(**base, row=row, verb=verb, run=None)
                    yield (
                        f"{experiment}{f', {row}' if row else ''}: {verb}",
                        problem_of(partial(stage, config=small, layout=layout), args),
                    )


def _collect(args: argparse.Namespace, config: Config, layout: Layout) -> None:
    from isnet_bench.reporting import collect

    name = args.experiment or args.study
    collect.collect(config, name, layout.root, layout.collected(name))


def _report(args: argparse.Namespace, config: Config, layout: Layout) -> None:
    from isnet_bench.reporting import outputs

    match args.verb:
        case "tables":
            outputs.write_tables(config, args.experiment, layout.root, layout.table(args.experiment))
        case "figures":
            out = layout.figure(f"{args.experiment}_{args.kind}")
            outputs.write_figure(args.kind, config, args.experiment, layout.root, out)
        case "study":
            outputs.write_study(config, args.study, layout.root)
        case "overview":
            outputs.write_overview(config, args.overview, layout.root)
        case "timing":
            for case in _cases(args, config):
                outputs.write_timing(config, case, layout.root)
        case "redraw":
            outputs.redraw(config, layout.root)


def _time(args: argparse.Namespace, config: Config, layout: Layout) -> None:
    from isnet_bench.timing import summary as timing

    for case in _cases(args, config):
        timing.run(config, layout.timing(config.case(case).suffix), case)


def _publish(args: argparse.Namespace, config: Config, layout: Layout) -> None:
    from isnet_bench.reporting import publishing

    # JSON text is YAML, too.
    text = args.config if args.config.lstrip().startswith("{") else Path(args.config).read_text(encoding="utf-8")
    publishing.publish(config, text, layout.root, args.out or layout.published())


def _archive(args: argparse.Namespace, config: Config, layout: Layout) -> None:
    from isnet_bench.reporting import archive

    archive.archive(Path(layout.root), args.published or layout.published(), args.out)


def _cases(args: argparse.Namespace, config: Config) -> list[str]:
    """Return the timing cases that are meant: all of them, where none is named."""
    if not config.cases:
        raise BenchError("the configuration has no key timing, so there is nothing to time")
    return [args.case] if args.case else list(config.cases)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    whole = argparse.ArgumentParser(prog="python -m isnet_bench", description=__doc__)
    verbs = whole.add_subparsers(metavar="VERB", dest="verb", required=True)
    _add_manifest(verbs)
    _add_runs(verbs)
    _add_reports(verbs)
    _add_extending(verbs)
    return whole


def _add_runs(verbs: Any) -> None:
    verb = _verb(verbs, "prepare", _prepare, "make the images and masks of an experiment", "experiment")
    verb.add_argument("--out", type=Path, help="folder (default: RESULTS/data/EXPERIMENT)")
    verb.add_argument("--files", default="", help="digest of the files below the data root, from the workflow")

    verb = _verb(verbs, "segment", _segment, "train a U-Net on given lung masks, and predict those that are missing")
    verb.add_argument("--out", type=Path, help="folder (default: RESULTS/segment)")

    verb = _verb(verbs, "range", _range, "measure the relevance range (C1, C2) of an ordinary classifier's heatmaps")
    _add_run(verb)
    verb.add_argument(
        "--classifier", type=Path, help="its run (default: RESULTS/EXPERIMENT/range/classifier/seedK, made if missing)"
    )
    verb.add_argument("--out", type=Path, help="file (default: RESULTS/EXPERIMENT/range/ID/seedK.json)")

    verb = _verb(verbs, "train", _train, "train one method with one seed")
    _add_run(verb)
    verb.add_argument("--range", type=Path, help="file of the relevance range, for the methods that need it")
    verb.add_argument("--out", type=Path, help="folder (default: RESULTS/EXPERIMENT/METHOD/seedK)")

    for name, text in (
        ("evaluate", "test a trained network: accuracies and background relevance"),
        ("mediate", "find the units by which the background changes predictions"),
    ):
        verb = _verb(verbs, name, _evaluate, text)
        _add_run(verb)
        verb.add_argument("--run", type=Path, help="folder of the training (default: RESULTS/EXPERIMENT/METHOD/seedK)")


def _add_reports(verbs: Any) -> None:
    verb = _verb(verbs, "collect", _collect, "gather the finished runs of an experiment or a study in a few tidy files")
    name = verb.add_mutually_exclusive_group(required=True)
    name.add_argument("--experiment")
    name.add_argument("--study")

    text = "write a collected experiment's tables as csv, Markdown, LaTeX and HTML"
    _verb(verbs, "tables", _report, text, "experiment")

    verb = _verb(verbs, "figures", _report, "draw a figure of a collected experiment as pdf and png", "experiment")
    verb.add_argument("--kind", required=True, choices=["accuracy", "heatmaps", "idea", "tradeoff"])

    text = "write a collected study's table, and draw its figure or choose a candidate"
    verb = _verb(verbs, "study", _report, text)
    verb.add_argument("--study", required=True, help="one of the configuration's studies")

    text = "write table and figure of an overview: rows of collected experiments and studies under every condition"
    verb = _verb(verbs, "overview", _report, text)
    verb.add_argument("--overview", required=True, help="one of the configuration's overviews")

    for name, run, text in (
        ("time", _time, "measure the time of a training step against the number of classes"),
        ("timing", _report, "write the measured training steps as table and page, and draw their figures"),
    ):
        verb = _verb(verbs, name, run, text)
        verb.add_argument("--case", help="timing case: main, or one of the configuration's (default: every case)")

    _verb(verbs, "redraw", _report, "write every table and figure of collected runs, or of published ones, again")

    text = "write what the tables and figures of collected runs are made of, in short"
    verb = _verb(verbs, "publish", _publish, text)
    verb.add_argument("--out", type=Path, help="folder of the snapshot (default: RESULTS/published)")

    text = "pack weights, predictions and scores of all finished runs, and what was published, with checksums"
    verb = _verb(verbs, "archive", _archive, text)
    verb.add_argument("--published", type=Path, help="folder of the snapshots (default: RESULTS/published)")
    verb.add_argument("--out", type=Path, default=Path("build/isnet-bench.tar"), help="file (default: %(default)s)")


def _add_extending(verbs: Any) -> None:
    for name, what in (
        ("check-method", "a method that a Python file defines does what the benchmark asks of it"),
        ("check-data", "a data set that a Python file defines is as the benchmark needs it"),
    ):
        verb = _bare_verb(verbs, name, _check, f"check that {what}")
        verb.add_argument("file", metavar="FILE", help="as the key plugins of a configuration names it")
    verb.add_argument("--settings", type=json.loads, default={}, help="JSON object (default: %(default)s)")
    text = "check that data sets, methods and backbones take the settings of a configuration; takes seconds"
    _verb(verbs, "check-config", _check, text)
    text = "check that every row of every experiment can be trained and tested at its size, on very few images"
    verb = _verb(verbs, "check-run", _check, text)
    verb.add_argument(
        "--share", default=(1, 1), type=arguments.share, metavar="K/N", help="only every N-th row, from the K-th"
    )
    verb = _bare_verb(verbs, "catalog", _catalog, "tell as JSON what methods and data sets there are")
    verb.add_argument("--plugins", nargs="*", default=[], metavar="FILE", help="Python files with further ones")
    _bare_verb(verbs, "schema", _catalog, "write the JSON Schema and the catalogue of what is built in")


def _bare_verb(verbs: Any, name: str, run: Callable[..., None], text: str, see: str = "") -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}{see}.")
    verb.set_defaults(run_verb=run)
    return verb


def _verb(verbs: Any, name: str, run: Callable[..., None], text: str, *required: str) -> argparse.ArgumentParser:
    """Add a verb that reads a configuration, and needs these options besides."""
    verb = _bare_verb(verbs, name, run, text)
    verb.add_argument("--config", default="config/config.yaml", help="YAML file or JSON text (default: %(default)s)")
    verb.add_argument("--results", type=Path, help="root of the results (default: the configuration's)")
    for option in required:
        verb.add_argument(f"--{option}", required=True)
    return verb


def _add_manifest(verbs: Any) -> None:
    text = "list the images of a published collection, or several such lists, in one manifest"
    verb = _bare_verb(verbs, "manifest", _manifest, text, "; see docs/data.md")
    verb.add_argument("--out", required=True, type=Path, help="manifest, in a folder above the images")
    verb.add_argument("--combine", nargs="+", type=Path, metavar="MANIFEST", help="manifests to write as one")
    verb.add_argument("--collection", help="name of the collection")
    verb.add_argument("--folder", type=Path, help="where it is unpacked")
    verb.add_argument(
        "--split",
        default="train",
        help="of all images: train, val, test_iid or test_ood; own: the collection's (default: %(default)s)",
    )
    verb.add_argument("--val-share", type=float, help="of the training patients (default: 0.15)")
    verb.add_argument("--test-iid-share", type=float, help="of the training patients (default: 0.15)")
    verb.add_argument("--part", help="part of the collection, where it is itself divided (default: all)")
    verb.add_argument("--views", default="frontal", help="frontal, or erect for standing patients only")
    verb.add_argument("--masked", action="store_true", help="leave out images without a mask")
    verb.add_argument(
        "--map", default=[], nargs="+", type=arguments.label, metavar="FINDING=LABEL", help="FINDING= leaves it out"
    )
    verb.add_argument("--limit", type=int, help="at most so many images of each label (default: all)")
    verb.add_argument("--seed", default=0, type=arguments.seed, help="of split and --limit (default: %(default)s)")


def _add_run(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--experiment", required=True)
    verb.add_argument("--row", "--method", required=True, help="row of the experiment's methods")
    verb.add_argument("--seed", required=True, type=arguments.seed)
    verb.add_argument(
        "--data", type=Path, help="folder of `prepare` (default: RESULTS/data/EXPERIMENT, made if missing)"
    )
