"""The command line: ``python -m isnet_bench VERB``, one verb for each stage of the benchmark."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from isnet_bench import config as configuration
from isnet_bench import studies
from isnet_bench.errors import BenchError

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
    args = _parser().parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    for package in ("isnet", "baselines", "isnet_bench"):
        logging.getLogger(package).setLevel(logging.INFO)
    try:
        config = configuration.load(args.config) if "config" in args else {}
        if getattr(args, "experiment", None) is not None:
            configuration.experiment_entries(config, args.experiment)
        args.run_verb(args, config)
    except BenchError as error:
        sys.stderr.write(f"error: {error}\n")
        return FAILED
    return 0


# Each verb imports its own stage: a table needs no trainer, and the trainer's imports alone take seconds.


def _manifest(args: argparse.Namespace, config: dict[str, Any]) -> None:
    from isnet_bench.builders import assembly

    if (args.collection is None or args.folder is None) == (args.combine is None):
        raise BenchError("manifest takes either --collection and --folder, or --combine")
    if args.combine:
        assembly.combine(args.combine, args.out)
        return
    settings = assembly.Settings(
        split=args.split,
        val_share=args.val_share,
        test_iid_share=args.test_iid_share,
        part=args.part,
        views=args.views,
        masked=args.masked,
        labels=dict(args.map),
        limit=args.limit,
        seed=args.seed,
    )
    assembly.build(args.collection, args.folder, args.out, settings)


def _prepare(args: argparse.Namespace, config: dict[str, Any]) -> None:
    from isnet_bench import data

    data.prepare(args.experiment, config, args.out or _data_folder(args, config))


def _segment(args: argparse.Namespace, config: dict[str, Any]) -> None:
    from isnet_bench import segmentation

    segmentation.segment(config, args.out or _root(config) / "segment")


def _range(args: argparse.Namespace, config: dict[str, Any]) -> None:
    if configuration.range_id(config, args.experiment, args.method) is None:
        raise BenchError(f"method {args.method} of experiment {args.experiment} needs no relevance range")
    folder, out = _prepared(args, config), args.out or _range_file(args, config)
    _measure(args, config, folder, out)


def _measure(args: argparse.Namespace, config: dict[str, Any], folder: Path, out: Path) -> None:
    """Measure a relevance range; the classifier of the layout is trained first where it is not there."""
    from isnet_bench import ranges

    classifier = getattr(args, "classifier", None)
    if classifier is None:
        classifier = _root(config) / args.experiment / "range" / "classifier" / f"seed{args.seed}"
        if not (classifier / "run.json").is_file():
            log.info("%s is not there yet, so this classifier is trained first", classifier)
            ranges.train_classifier(config, args.experiment, args.seed, folder, classifier)
    part = configuration.prune(config, args.experiment, args.method, "range")
    ranges.measure(part, args.experiment, args.seed, folder, classifier, out)


def _train(args: argparse.Namespace, config: dict[str, Any]) -> None:
    from isnet_bench import training

    needs_range = configuration.range_id(config, args.experiment, args.method) is not None
    folder = _prepared(args, config)
    measured = _measured(args, config, folder) if needs_range else None
    out = args.out or _run_folder(args, config)
    training.train(config, args.experiment, args.method, args.seed, folder, out, measured)


def _evaluate(args: argparse.Namespace, config: dict[str, Any]) -> None:
    from isnet_bench import evaluation

    folder, run = _prepared(args, config), args.run or _run_folder(args, config)
    evaluation.evaluate(config, args.experiment, args.method, args.seed, folder, run)


def _mediate(args: argparse.Namespace, config: dict[str, Any]) -> None:
    from isnet_bench import evaluation

    folder, run = _prepared(args, config), args.run or _run_folder(args, config)
    evaluation.mediate(config, args.experiment, args.method, args.seed, folder, run)


def _tune(args: argparse.Namespace, config: dict[str, Any]) -> None:
    from isnet_bench import tuning

    if "tuning" not in config:
        raise BenchError("the configuration has no key tuning, so there is nothing to choose among")
    results = args.results or _root(config)
    tuning.select(config, results, args.out or results / "tables" / "tuning")


def _study(args: argparse.Namespace, config: dict[str, Any]) -> None:
    from isnet_bench.reporting import outputs

    results = args.results or _root(config)
    table, figure = args.out or results / "tables" / args.study, args.figure or results / "figures" / args.study
    outputs.write_study(config, args.study, results, table, figure)


def _time(args: argparse.Namespace, config: dict[str, Any]) -> None:
    from isnet_bench import timing

    for study in _studies(args, config, args.out or args.table):
        end = studies.suffix(study)
        out = args.out or _root(config) / "timing" / f"training_step{end}.json"
        timing.run(config, out, study)
        timing.table(out, args.table or _root(config) / "tables" / f"timing{end}.csv")


def _tables(args: argparse.Namespace, config: dict[str, Any]) -> None:
    from isnet_bench.reporting import comparison, tables

    results = args.results or _root(config)
    out = args.out or results / "tables" / args.experiment
    tables.write(config, args.experiment, results, out)
    comparison.write(config, args.experiment, results, out.with_name(f"{out.name}_comparison"))


def _page(args: argparse.Namespace, config: dict[str, Any]) -> None:
    from isnet_bench.reporting import outputs, timing_page

    results = args.results or _root(config)
    for study in _studies(args, config, args.out):
        out = args.out or results / "tables" / f"timing{studies.suffix(study)}.html"
        timing_page.write(outputs.timing_json(results, study), out)


def _figures(args: argparse.Namespace, config: dict[str, Any]) -> None:
    from isnet_bench.reporting import outputs

    results = args.results or _root(config)
    if args.kind in ("timing", "memory"):
        _timing_figures(args, config, results)
        return
    if args.experiment is None:
        raise BenchError(f"--kind {args.kind} needs --experiment")
    out = args.out or results / "figures" / f"{args.experiment}_{args.kind}"
    outputs.draw(args.kind, config, args.experiment, results, out)


def _timing_figures(args: argparse.Namespace, config: dict[str, Any], results: Path) -> None:
    from isnet_bench.reporting import outputs

    quantity = "memory" if args.kind == "memory" else "time"
    for study in _studies(args, config, args.out):
        out = args.out or results / "figures" / f"training_{quantity}_vs_classes{studies.suffix(study)}"
        outputs.draw_timing(quantity, config, results, out, study)


def _redraw(args: argparse.Namespace, config: dict[str, Any]) -> None:
    from isnet_bench.reporting import outputs

    outputs.redraw(config, args.results or _root(config))


def _publish(args: argparse.Namespace, config: dict[str, Any]) -> None:
    from isnet_bench.reporting import publishing

    # JSON text is YAML, too.
    text = args.config if args.config.lstrip().startswith("{") else Path(args.config).read_text(encoding="utf-8")
    results = args.results or _root(config)
    publishing.publish(config, text, results, args.out or results / "published")


def _studies(args: argparse.Namespace, config: dict[str, Any], place: Path | None) -> list[str]:
    """Return the timing studies that are meant: all of them, where none is named."""
    known = studies.names(config)
    if not known:
        raise BenchError("the configuration has no key timing, so there is nothing to time")
    if args.study is not None:
        return [args.study]
    if place is not None and len(known) > 1:
        raise BenchError(f"{place} is a place for one timing study; say which with --study: {', '.join(known)}")
    return known


def _root(config: dict[str, Any]) -> Path:
    return Path(config["results"])


def _data_folder(args: argparse.Namespace, config: dict[str, Any]) -> Path:
    return _root(config) / "data" / args.experiment


def _range_file(args: argparse.Namespace, config: dict[str, Any]) -> Path:
    range_id = configuration.range_id(config, args.experiment, args.method)
    return _root(config) / args.experiment / "range" / range_id / f"seed{args.seed}.json"


def _run_folder(args: argparse.Namespace, config: dict[str, Any]) -> Path:
    return _root(config) / args.experiment / args.method / f"seed{args.seed}"


def _prepared(args: argparse.Namespace, config: dict[str, Any]) -> Path:
    """Return the data folder; that of the layout is filled first where it is not there."""
    if args.data is not None:
        return args.data
    folder = _data_folder(args, config)
    if not (folder / "data.json").is_file():
        log.info("%s holds no data yet, so they are prepared first", folder)
        from isnet_bench import data

        data.prepare(args.experiment, config, folder)
    return folder


def _measured(args: argparse.Namespace, config: dict[str, Any], folder: Path) -> Path:
    """Return the relevance range's file; that of the layout is measured first where it is not there."""
    if args.range is not None:
        return args.range
    file = _range_file(args, config)
    if not file.is_file():
        log.info("%s is not there yet, so the relevance range is measured first", file)
        _measure(args, config, folder, file)
    return file


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no seed: it must be 0, 1, 2, ...")
    return int(text)


def _label(text: str) -> tuple[str, str]:
    finding, found, label = text.partition("=")
    if not (finding and found):
        raise argparse.ArgumentTypeError(f"{text!r} is not FINDING=LABEL")
    return finding, label


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m isnet_bench", description=__doc__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)

    _add_manifest(verbs)

    verb = _verb(verbs, "prepare", _prepare, "make the images and masks of an experiment")
    verb.add_argument("--experiment", required=True)
    verb.add_argument("--out", type=Path, help="folder (default: RESULTS/data/EXPERIMENT)")

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

    verb = _verb(verbs, "evaluate", _evaluate, "test a trained network: accuracies and background relevance")
    _add_trained(verb)

    verb = _verb(verbs, "mediate", _mediate, "find the units by which the background changes predictions")
    _add_trained(verb)

    verb = _verb(verbs, "tune", _tune, "choose among the trained candidates of each method, by validation images alone")
    _add_report(verb, "RESULTS/tables/tuning")

    verb = _verb(verbs, "study", _study, "write the table of a study's trained and tested runs, and draw its figure")
    verb.add_argument("--study", required=True, help="one of the configuration's studies")
    _add_report(verb, "RESULTS/tables/STUDY")
    verb.add_argument("--figure", type=Path, help="path without suffix (default: RESULTS/figures/STUDY)")

    verb = _verb(verbs, "time", _time, "measure the time of a training step against the number of classes")
    _add_study(verb)
    verb.add_argument("--out", type=Path, help="pytest-benchmark JSON (default: RESULTS/timing/training_step.json)")
    verb.add_argument("--table", type=Path, help="csv (default: RESULTS/tables/timing.csv)")

    verb = _verb(verbs, "tables", _tables, "write an experiment's table as csv, Markdown and LaTeX")
    verb.add_argument("--experiment", required=True)
    _add_report(verb, "RESULTS/tables/EXPERIMENT")

    verb = _verb(verbs, "page", _page, "write the measured training steps as a page of HTML")
    _add_study(verb)
    _add_results(verb)
    verb.add_argument("--out", type=Path, help="page (default: RESULTS/tables/timing.html)")

    verb = _verb(verbs, "figures", _figures, "draw a figure as pdf and png")
    verb.add_argument("--kind", required=True, choices=["accuracy", "heatmaps", "tradeoff", "timing", "memory"])
    verb.add_argument("--experiment", help="for accuracy, heatmaps and tradeoff")
    _add_study(verb)
    _add_report(verb, "RESULTS/figures/...")

    verb = _verb(verbs, "redraw", _redraw, "write every table and figure of finished runs, or of published ones, again")
    _add_results(verb)

    verb = _verb(verbs, "publish", _publish, "write what the tables and figures of finished runs are made of, in short")
    _add_results(verb)
    verb.add_argument("--out", type=Path, help="folder of the snapshot (default: RESULTS/published)")
    return parser


def _verb(verbs: Any, name: str, run: Callable[..., None], text: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    verb.set_defaults(run_verb=run)
    verb.add_argument("--config", default="config/config.yaml", help="YAML file or JSON text (default: %(default)s)")
    return verb


def _add_manifest(verbs: Any) -> None:
    text = "list the images of a published collection of chest X-rays, or several such lists, in one manifest"
    verb = verbs.add_parser("manifest", help=text, description=f"{text[0].upper()}{text[1:]}; see docs/data.md.")
    verb.set_defaults(run_verb=_manifest)
    verb.add_argument("--out", required=True, type=Path, help="manifest, in a folder above the images")
    verb.add_argument("--combine", nargs="+", type=Path, metavar="MANIFEST", help="manifests to write as one")
    verb.add_argument("--collection", help="name of the collection")
    verb.add_argument("--folder", type=Path, help="where it is unpacked")
    verb.add_argument(
        "--split", default="train", help="train, val, test_iid or test_ood, for all images (default: %(default)s)"
    )
    verb.add_argument("--val-share", type=float, help="of the patients, with --split train (default: 0.15)")
    verb.add_argument("--test-iid-share", type=float, help="of the patients, with --split train (default: 0.15)")
    verb.add_argument("--part", help="part of the collection, where it is itself divided (default: all)")
    verb.add_argument("--views", default="frontal", help="frontal, or erect for standing patients only")
    verb.add_argument("--masked", action="store_true", help="leave out images without a lung mask")
    verb.add_argument(
        "--map", default=[], nargs="+", type=_label, metavar="FINDING=LABEL", help="labels; FINDING= leaves it out"
    )
    verb.add_argument("--limit", type=int, help="at most so many images of each label (default: all)")
    verb.add_argument("--seed", default=0, type=_seed, help="of the split and of --limit (default: %(default)s)")


def _add_run(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--experiment", required=True)
    verb.add_argument("--method", required=True, help="row of the experiment's methods")
    verb.add_argument("--seed", required=True, type=_seed)
    verb.add_argument(
        "--data", type=Path, help="folder of `prepare` (default: RESULTS/data/EXPERIMENT, made if missing)"
    )


def _add_trained(verb: argparse.ArgumentParser) -> None:
    _add_run(verb)
    verb.add_argument("--run", type=Path, help="folder of the training (default: RESULTS/EXPERIMENT/METHOD/seedK)")


def _add_study(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--study", help="timing study: main, or one of the configuration's timing.studies (default: every study)"
    )


def _add_results(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--results", type=Path, help="root of the results (default: the configuration's)")


def _add_report(verb: argparse.ArgumentParser, default: str) -> None:
    _add_results(verb)
    verb.add_argument("--out", type=Path, help=f"path without suffix (default: {default})")
