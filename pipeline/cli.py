"""Every failure a user meets is one line and an exit code: 0 done, 1 failed, 2 bad input, 130
interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import shlex
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stockpot.command import DEFAULT_RUNS, DEFAULT_STORE, command, kept
from stockpot.stages.errors import BadInput, Corrupt, StockpotError
from stockpot.stages.places import local
from stockpot.stages.show.printable import printable, printable_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stockpot.execution.progress import Display
    from stockpot.planning.budget import Budget
    from stockpot.planning.plan import Planned, Planner
    from stockpot.planning.recipe import Recipe
    from stockpot.store.store import Store

__all__ = ["main", "parser"]


class _Parser(argparse.ArgumentParser):
    """Usage errors are `BadInput` like all others."""

    def error(self, message: str) -> Any:
        """Raise instead of printing the usage."""
        what, _, fix = message.replace(": RECIPE, STAGE", ": RECIPE").partition("; fix: ")
        raise BadInput(what, fix=fix or f"{self.prog} --help")


class _Version(argparse.Action):
    """Prints the version, which is looked up only where it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_given: Any) -> None:
        """Print it and stop."""
        from stockpot.store.manifest import own_version

        print(f"stockpot {own_version()}")
        parser.exit()


class _VerbParser(_Parser):
    """Takes options and stages in any order: `run R.toml --store S train` as well as `run R.toml
    train --store S`.
    """

    _mixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, options and positional arguments intermixed."""
        if self._mixing:
            return super().parse_known_args(args, namespace)
        self._mixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = _Parser(
        prog="stockpot",
        description="Turn a large graph, once, into a store of mini-batches; train and soup GNNs "
        "from it.",
        epilog="exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted",
    )
    top.add_argument(
        "--version", action=_Version, nargs=0, help="print the version of stockpot and stop"
    )
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_VerbParser)

    run = _verb(verbs, "run", _run, "build what is missing, ancestors only, and print the result")
    _recipe(run)
    run.add_argument(
        "stages",
        nargs="*",
        metavar="STAGE",
        help="stages or artifacts to build (train, train:0); default: all",
    )
    run.add_argument(
        "--force",
        action="append",
        default=[],
        metavar="STAGE",
        help="set its artifacts aside and build them again",
    )
    run.add_argument(
        "--scheduler",
        metavar="WHERE",
        help="where tasks run: local (default), or tcp://HOST:PORT of a `dask scheduler` whose "
        "workers see the store "
        "and the source under the same absolute paths",
    )
    run.add_argument(
        "--dask-report",
        action="store_true",
        help="keep Dask's performance report in RUNS/NAME/dask-report.html; on a cluster it always "
        "is",
    )

    _ranks(run)

    plan = _verb(
        verbs, "plan", _plan, "what run would do: states, bytes, projected memory; builds nothing"
    )
    _recipe(plan)
    plan.add_argument(
        "stages", nargs="*", metavar="STAGE", help="stages or artifacts; default: all"
    )
    _ranks(plan)
    plan.add_argument(
        "--force", action="append", default=[], metavar="STAGE", help="as if run were given it"
    )

    status = _verb(
        verbs, "status", _status, "which artifacts of a recipe are built, and how far others are"
    )
    _recipe(status)

    verify = _verb(
        verbs, "verify", _verify, "read every stored byte and compare it with its digest"
    )
    _recipe(verify, optional=True)
    verify.add_argument(
        "--all", action="store_true", help="every artifact of the store, not only a recipe's"
    )
    verify.add_argument(
        "--keep", action="store_true", help="only report: leave damaged artifacts where they are"
    )

    soup = _verb(
        verbs, "soup", _soup, "one model from several that exist: of runs, or trained elsewhere"
    )
    soup.add_argument(
        "where",
        nargs="+",
        type=_place,
        metavar="MODELS",
        help="run folder, folder of .safetensors, one such file, or a train artifact; several are "
        "put together",
    )
    soup.add_argument(
        "--batches",
        type=_place,
        metavar="RUN",
        help="run folder, store or pack artifact: its validation records choose; default: the "
        "first run of MODELS",
    )
    soup.add_argument(
        "--factory",
        default="",
        metavar="package.module:build",
        help="builds the model that files from elsewhere hold the weights of, called as "
        "train.model is",
    )
    soup.add_argument(
        "--out", type=_place, metavar="DIR", help="folder of the soup; default: MODELS-soup"
    )
    _overrides(soup, "soup.method=greedy, and for a factory train.hidden=64, ...")

    fetch = _verb(
        verbs, "fetch", _fetch, "bring the raw files of an ogb: or pyg: data set, without a prompt"
    )
    _recipe(fetch)

    report = _verb(
        verbs, "report", _report, "write report.html and summary.json again from what is stored"
    )
    _recipe(report)

    inspect = _verb(verbs, "inspect", _inspect, "one record, or one whole artifact, readable")
    _recipe(inspect, about="TOML file, or the folder of a run or of an artifact")
    inspect.add_argument(
        "artifact", nargs="?", metavar="ARTIFACT", help="show all of this one, e.g. pack:train"
    )
    inspect.add_argument("--split", metavar="SPLIT", help="the record's split (default: train)")
    inspect.add_argument(
        "--record", type=int, metavar="N", help="number of the record (default: 0)"
    )

    recipe = _verb(verbs, "recipe", _recipe_verb, "print a recipe with every key resolved")
    _recipe(recipe, optional=True)
    recipe.add_argument(
        "--defaults", action="store_true", help="print every key with its default, unit and reason"
    )
    return top


def _place(text: str) -> Path:
    try:
        return local(text, "")
    except BadInput as error:  # one that argparse puts the option's name before
        raise argparse.ArgumentTypeError(str(error).strip()) from error


def _verb(
    verbs: Any, name: str, action: Callable[[argparse.Namespace], int], about: str
) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=about, description=about)
    verb.set_defaults(action=action)
    verb.add_argument("--json", action="store_true", help="print JSON")
    verb.add_argument(
        "--store",
        type=_place,
        default=DEFAULT_STORE,
        help="folder of the store (default: runs/store)",
    )
    verb.add_argument(
        "--runs", type=_place, default=DEFAULT_RUNS, help="folder of the runs (default: runs)"
    )
    return verb


def _recipe(
    verb: argparse.ArgumentParser,
    *,
    optional: bool = False,
    about: str = "TOML file, e.g. data/wordnet.toml",
) -> None:
    verb.add_argument("recipe", nargs="?" if optional else None, metavar="RECIPE", help=about)
    _overrides(verb, "batches.top_k=32")


def _ranks(verb: argparse.ArgumentParser) -> None:
    about = (
        "processes that train one model together, as train.ranks; under torchrun, its own number"
    )
    verb.add_argument("--ranks", type=int, metavar="N", help=about)


def _overrides(verb: argparse.ArgumentParser, example: str) -> None:
    about = f"override a key, e.g. --set {example}"
    verb.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=about)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    The exit code.
    """
    args: argparse.Namespace | None = None
    try:
        from stockpot.execution.interrupt import interruptible

        logging.getLogger("stockpot").addFilter(_shown)
        with interruptible():
            args = parser().parse_args(argv)
            code: int = args.action(args)
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        # The reader of our output is gone (`| head`): nothing to say, nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except StockpotError as error:
        fix = _mend(error) if error.fix is None else _typed(args, error.fix)
        _complain(error.message + (f"; fix: {kept(fix, args) if args else fix}" if fix else ""))
        trace = getattr(error, "trace", "")
        if trace:
            _keep_trace(args, trace)
        return error.exit_code
    except (PermissionError, IsADirectoryError) as error:
        _complain(
            f"{error.filename or 'a file'}: {error.strerror}; fix: name a file or folder that this "
            f"user may use"
        )
        _keep_trace(args, traceback.format_exc())
        return BadInput.exit_code
    except Exception as error:  # noqa: BLE001 - shown as one line; the traceback goes to a file
        _complain(f"{type(error).__name__}: {error}")
        _keep_trace(args, traceback.format_exc())
        return 1


def _shown(record: logging.LogRecord) -> bool:
    record.msg, record.args = printable(record.getMessage()), ()
    return True


def _mend(error: StockpotError) -> str:
    """For a value that a recipe key does not take: where it says what it takes."""
    from stockpot.planning.recipe import KEYS

    named = (key for key in KEYS if re.search(rf"(^|\s){re.escape(key)}\b", error.message))
    if isinstance(error, BadInput) and (key := max(named, key=len, default=None)):
        return f"change {key}; stockpot recipe --defaults says what it takes"
    return ""


def _typed(args: argparse.Namespace | None, text: str) -> str:
    """A text whose command that fetches the data can be typed as it stands."""
    if getattr(args, "recipe", None) is None:
        return text
    return text.replace("stockpot fetch RECIPE", command(args, "fetch"))  # type: ignore[arg-type]


def _complain(message: str) -> None:
    print(f"stockpot: error: {printable(' '.join(message.split()))}", file=sys.stderr, flush=True)


def _keep_trace(args: argparse.Namespace | None, trace: str) -> None:
    runs, recipe = getattr(args, "runs", None), getattr(args, "recipe", None)
    if runs is None:
        sys.stderr.write(printable(trace))
        return
    path = runs / Path(recipe).stem / "error.log" if recipe else runs / "error.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(trace, encoding="utf-8")
    except OSError:
        sys.stderr.write(printable(trace))
    else:
        print(f"stockpot: traceback in {printable(str(path))}", file=sys.stderr, flush=True)


class _Session:
    """What most verbs need: the recipe, the store, and a planner with its caches."""

    def __init__(self, args: argparse.Namespace) -> None:
        from stockpot.execution import ranks
        from stockpot.planning import dag
        from stockpot.planning.plan import Planner
        from stockpot.planning.recipe import load
        from stockpot.store.digests import StatCache
        from stockpot.store.fingerprints import Seen
        from stockpot.store.store import Store

        self.args = args
        overrides = list(args.set)
        if getattr(args, "scheduler", None):
            overrides.append(f"resources.scheduler={json.dumps(args.scheduler)}")
        overrides += ranks.overrides(getattr(args, "ranks", None))
        self.recipe: Recipe = load(args.recipe, overrides)
        self.store: Store = Store(args.store)
        self.runs: Path = args.runs
        self.seen = Seen(args.runs / "seen.json")
        self.planner: Planner = Planner(
            self.recipe, self.store, StatCache(args.runs / "stat-cache.json"), self.seen
        )
        if forced := getattr(args, "force", []):
            self.planner.force |= set(dag.select(self.planner.nodes, forced))

    def budget(self) -> Budget:
        from stockpot.planning.budget import measure

        return measure(self.recipe.resources)


def _print(args: argparse.Namespace, document: Any, text: str) -> None:
    found = (
        printable_json(json.dumps(document, indent=1, ensure_ascii=False))
        if args.json
        else printable(text)
    )
    print(found)


def _run(args: argparse.Namespace) -> int:
    from stockpot.execution import ranks

    rank, _ = ranks.place()
    if rank > 0:
        return ranks.served(rank, args.store)
    with ranks.serving(args.store):
        return _built(args)


def _built(args: argparse.Namespace) -> int:
    session = _Session(args)
    from stockpot.errors import CorruptArtifact
    from stockpot.execution.progress import display
    from stockpot.execution.run import Runner
    from stockpot.report.outputs import built_of, check_writable, result_text, write_outputs

    check_writable(session.runs / session.recipe.name)
    show = display(sys.stdout, silent=args.json)
    fresh: set[str] = set()
    mended: set[str] = set()
    budget = session.budget()
    report = (
        session.runs / session.recipe.name / "dask-report.html"
        if args.dask_report or not budget.local
        else None
    )
    try:
        while True:
            runner = Runner(session.planner, session.store, budget, show, report=report)
            runner.run(args.stages)
            fresh |= runner.built
            built = built_of(_standing(session.planner, args.stages, show), fresh)
            try:
                summary = write_outputs(
                    session.recipe,
                    session.store,
                    session.runs,
                    built,
                    command(args, "run", *args.stages),
                )
            except CorruptArtifact as error:
                # Found only now, in a file that no stage reads (a history): mended like any other.
                if error.key in mended:
                    raise
                mended.add(error.key)
                show.say(f"{error.stage:<18} damaged: {error.message}; set aside and built anew")
                session.store.quarantine(error.stage, error.key, error.message)
                session.planner.force.clear()  # built already
            else:
                break
    finally:
        show.close()
        session.seen.save()
    _print(args, summary, result_text(summary, built, session.runs / session.recipe.name))
    return 0


def _standing(planner: Planner, asked: Sequence[str], show: Display) -> list[Planned]:
    """What the run folder tells of: the whole recipe, or what was asked for where the rest cannot
    take the data set.
    """
    try:
        return planner.plan()
    except BadInput as error:
        if not asked:
            raise
        show.say(f"the report leaves out what was not asked for: {error.message}")
        return planner.plan(asked)


def _plan(args: argparse.Namespace) -> int:
    from stockpot.planning.budget import refuse
    from stockpot.planning.status import plan_document, plan_text

    session = _Session(args)
    planned, budget = session.planner.plan(args.stages), session.budget()
    session.planner.check_source(planned)
    session.seen.save()
    absent, left_out = session.planner.absent, session.planner.left_out
    if absent is not None:
        absent = BadInput(absent.message, fix=_typed(args, str(absent.fix)))
    text = plan_text(planned, budget, absent) + (f"\n{left_out}" if left_out else "")
    _print(args, {**plan_document(planned, budget, absent), "left_out": left_out or None}, text)
    refuse(budget, [(p.node.id, p.cost) for p in planned if p.cost is not None and not p.cached])
    return 0


def _status(args: argparse.Namespace) -> int:
    from stockpot.planning.status import status_document, status_text

    session = _Session(args)
    document = status_document(session.planner.plan(), session.store)
    _print(args, document, status_text(document))
    return 0


def _verify(args: argparse.Namespace) -> int:
    from stockpot.execution.progress import display
    from stockpot.store.store import Store
    from stockpot.store.verify import NO_DAMAGE, verify_artifact, verify_run

    if args.recipe is None and not args.all:
        raise BadInput("verify: expected a recipe or --all", fix="stockpot verify --all")
    store = Store(args.store)
    if args.recipe is None:
        if not store.root.is_dir():
            raise BadInput(
                f"verify: {store.root}: no such store",
                fix="name a store that exists with --store DIR",
            )
        artifacts = store.artifacts()
        runs = sorted(path.parent for path in args.runs.glob("*/run.json"))
    else:
        session = _Session(args)
        there = [
            (p.node.stage, str(p.key)) for p in session.planner.plan() if p.cached or p.damaged
        ]
        artifacts = store.artifacts() if args.all else list(dict.fromkeys(there))
        runs = [args.runs / session.recipe.name]
    show = display(sys.stderr, silent=args.json)
    missing = [found for folder in runs for found in verify_run(store, folder)]
    # A store is whole without what a run of long ago had; a recipe that is asked for is not.
    findings = list(missing) if args.recipe is not None else []
    for f in missing:
        show.say(f"{f.stage}/{f.key}: {f.file}: {f.message}")
    for stage, key in artifacts:
        found = verify_artifact(store, stage, key)
        findings += found
        for f in found:  # said first: setting it aside may fail
            show.say(f"{f.stage}/{f.key}: {f.file}: {f.message}")
        if not args.keep and any(f.kind not in NO_DAMAGE for f in found):
            show.say(f"{stage}/{key}: {_set_aside(store, stage, key, found[0].message)}")
    show.close()
    document = {
        "store": str(store.root),
        "artifacts": len(artifacts),
        "findings": [vars(f) for f in findings],
        "missing": [vars(f) for f in missing],
    }
    damaged = len({(f.stage, f.key) for f in findings} & set(artifacts))
    sound = f"{len(artifacts) - damaged} of {len(artifacts)} artifacts in {store.root} are sound"
    if lost := sum(f.kind == "absent" for f in missing):
        sound += f", {lost} more {'is' if lost == 1 else 'are'} missing"
    _print(args, document, sound)
    return 0 if not findings else 2 if all(f.kind == "unreadable" for f in findings) else 1


def _set_aside(store: Store, stage: str, key: str, why: str) -> str:
    """Set a damaged artifact aside, and say what became of it."""
    try:
        moved = store.quarantine(stage, key, why)
    except (BadInput, OSError) as error:
        reason = error.message if isinstance(error, BadInput) else error.strerror or error
        return f"could not be set aside: {reason}"
    return "gone already" if moved is None else f"set aside as {moved}; the next run builds it anew"


def _soup(args: argparse.Namespace) -> int:
    from stockpot.execution.progress import Fraction, display
    from stockpot.souping.outputs import document_text
    from stockpot.souping.souping import Asked, make

    words = [str(path) for path in args.where]
    for name in ("batches", "factory", "out"):
        if value := getattr(args, name):
            words += [f"--{name}", str(value)]
    for override in args.set:
        words += ["--set", override]
    asked = Asked(
        args.where,
        args.batches,
        args.factory,
        args.out,
        args.set,
        shlex.join(["stockpot", "soup", *words]),
    )
    show = display(sys.stdout, silent=args.json)
    show.start("soup", 1)

    def report(done: int, total: int, text: str) -> None:
        show.update("soup", 0, {"soup": Fraction(done, total, text)})

    try:
        document = make(asked, report)
    finally:
        show.close()
    _print(args, document, document_text(document))
    return 0


def _report(args: argparse.Namespace) -> int:
    from stockpot.report.outputs import built_of, write_outputs

    session = _Session(args)
    planned = session.planner.plan()
    for found in planned:
        if found.damaged is not None:  # a report without it would say that it was never built
            raise Corrupt(
                f"{found.node.id}: damaged: {found.damaged}",
                fix=f"stockpot verify --all --store {args.store} sets it aside, the next run "
                f"builds it anew",
            )
    built = built_of(planned, ())
    if not built:
        raise BadInput(
            f"report: nothing of {args.recipe} is built in {args.store}",
            fix=f"stockpot run {args.recipe}",
        )
    summary = write_outputs(
        session.recipe, session.store, session.runs, built, command(args, "run")
    )
    _print(args, summary, f"written: {session.runs / session.recipe.name / 'report.html'}")
    return 0


def _fetch(args: argparse.Namespace) -> int:
    from stockpot.execution.progress import display
    from stockpot.planning.recipe import load
    from stockpot.stages.ingest.fetch import fetch
    from stockpot.stages.ingest.source import describe

    text = str(load(args.recipe, args.set).values()["dataset.source"])
    absent = (source := describe(text)).absent
    if absent is not None:
        show = display(sys.stderr, silent=args.json)
        try:
            fetch(source, show.say)
        finally:
            show.close()
        source = describe(text)
        if source.absent is not None:
            raise source.absent
    document = {
        "source": text,
        "folder": source.root,
        "fetched": absent is not None,
        "bytes": source.bytes(),
    }
    how = "fetched" if absent is not None else "there already"
    where = f" in {source.root}" if source.files else ""
    _print(args, document, f"{text}: {how}: {len(source.files)} files{where}")
    return 0


def _inspect(args: argparse.Namespace) -> int:
    from stockpot.inspection.artifact import artifact_document, artifact_text
    from stockpot.inspection.target import in_folder, in_recipe

    folder = Path(args.recipe)
    target = in_folder(folder, args) if folder.is_dir() else in_recipe(_Session(args).planner, args)
    if target.record is None:
        document = artifact_document(target)
        _print(args, document, "" if args.json else artifact_text(document))
        return 0
    from stockpot.inspection.record import record_document, record_text

    words = [] if args.artifact is None else [args.artifact]
    words += [] if args.split is None else ["--split", args.split]
    document = record_document(target, command(args, "inspect", *words))
    _print(args, document, "" if args.json else record_text(document))
    return 0


def _recipe_verb(args: argparse.Namespace) -> int:
    from stockpot.planning.recipe import KEYS, defaults_text, load, to_toml

    if args.defaults:
        keys = {
            name: {"default": key.default, "expected": key.expected, "about": key.about}
            for name, key in KEYS.items()
        }
        _print(args, keys, defaults_text().rstrip())
        return 0
    if args.recipe is None:
        raise BadInput(
            "recipe: expected a recipe file or --defaults", fix="stockpot recipe --defaults"
        )
    recipe = load(args.recipe, args.set)
    _print(args, recipe.tables(), to_toml(recipe).rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
