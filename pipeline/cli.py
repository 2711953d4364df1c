"""Every failure a user meets is one line and an exit code: 0 done, 1 failed, 2 bad input, 130
interrupted.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stockpot.command import DEFAULT_RUNS, DEFAULT_STORE, kept, typed
from stockpot.stages.errors import BadInput, StockpotError
from stockpot.stages.places import local
from stockpot.stages.show.printable import printable

if TYPE_CHECKING:
    from collections.abc import Sequence


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

    run = _verb(
        verbs, "run", "building:run", "build what is missing, ancestors only, and print the result"
    )
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
        verbs,
        "plan",
        "building:plan",
        "what run would do: states, bytes, projected memory; builds nothing",
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
        verbs,
        "status",
        "building:status",
        "which artifacts of a recipe are built, and how far others are",
    )
    _recipe(status)

    verify = _verb(
        verbs, "verify", "verifying:verify", "read every stored byte and compare it with its digest"
    )
    _recipe(verify, optional=True)
    verify.add_argument(
        "--all", action="store_true", help="every artifact of the store, not only a recipe's"
    )
    verify.add_argument(
        "--keep", action="store_true", help="only report: leave damaged artifacts where they are"
    )

    soup = _verb(
        verbs,
        "soup",
        "soup:soup",
        "one model from several that exist: of runs, or trained elsewhere",
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
        verbs,
        "fetch",
        "building:fetch",
        "bring the raw files of an ogb: or pyg: data set, without a prompt",
    )
    _recipe(fetch)

    report = _verb(
        verbs,
        "report",
        "showing:report",
        "write report.html and summary.json again from what is stored",
    )
    _recipe(report)

    inspect = _verb(
        verbs, "inspect", "showing:inspect", "one record, or one whole artifact, readable"
    )
    _recipe(inspect, about="TOML file, or the folder of a run or of an artifact")
    inspect.add_argument(
        "artifact", nargs="?", metavar="ARTIFACT", help="show all of this one, e.g. pack:train"
    )
    inspect.add_argument("--split", metavar="SPLIT", help="the record's split (default: train)")
    inspect.add_argument(
        "--record", type=int, metavar="N", help="number of the record (default: 0)"
    )

    warm = _verb(
        verbs,
        "warm",
        "warming:warm",
        "compile every kernel, once a machine: runs then wait for none",
    )
    warm.add_argument(
        "kinds",
        nargs="*",
        metavar="KIND",
        help='only those of some kinds of run, e.g. "recipe", what data/wordnet.toml calls',
    )

    recipe = _verb(verbs, "recipe", "showing:recipe", "print a recipe with every key resolved")
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


def _verb(verbs: Any, name: str, action: str, about: str) -> argparse.ArgumentParser:
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
            module, _, verb = args.action.partition(":")
            code: int = getattr(import_module(f"stockpot.verbs.{module}"), verb)(args)
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        # The reader of our output is gone (`| head`): nothing to say, nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except StockpotError as error:
        fix = _mend(error) if error.fix is None else typed(args, error.fix)
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


if __name__ == "__main__":
    sys.exit(main())
