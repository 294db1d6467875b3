"""``lethe bench paper``: the paper's experiments on data that lie in one folder.

Trains an original for each data set and seed, lets every method that applies forget the same pairs,
and writes results.json, tables.md, runs.md and plots/. It can be stopped at any moment and goes on
with --resume: a run is found by a digest of its specification, its data and the code that it uses,
and is never done twice. The exit status is 0 when every run ended as planned (also where a method
does not apply), 2 when one failed, 130 when it was stopped.
"""

import argparse
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar, get_args

from rich.console import Console

from benchmarks.figures import BenchmarkError
from benchmarks.options import counted, make_folder, positive, usable_device
from benchmarks.paper.data import Amount, files_of, prepare
from benchmarks.paper.display import Display
from benchmarks.paper.folder import check_folder
from benchmarks.paper.plan import Options, Part, jobs, make_plan
from benchmarks.paper.preset_file import read_presets, with_models
from benchmarks.paper.presets import PRESETS, Preset
from benchmarks.paper.report import RESULTS, write_report, write_results
from benchmarks.paper.results import Results, collect
from benchmarks.paper.run import DATA, Bench, locked
from benchmarks.paper.settings import read_settings
from benchmarks.paper.together import together
from engine.errors import EngineError
from engine.spec import LEAST_REFERENCES

AMOUNTS = ("3.5%", "17%")
"""The paper deletes 5,000 of Flickr30K: that is 3.5% of its pairs, and 17% of its images."""
FAILED, STOPPED = 2, 130
_Name = TypeVar("_Name")


def main(arguments: Sequence[str] | None = None, known: Mapping[str, Preset] = PRESETS) -> int:
    """Run the command and return the exit status; ``known`` are the data sets that can be named."""
    parser = _parser(known)
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _stop)
    try:
        if given.report is not None:
            _tell(_report(given.report, given.out))
            return 0
        known = {**known, **read_presets(given.presets or (), known)}
        return _bench(with_models(_options(given, known)), given)
    except (BenchmarkError, EngineError) as error:
        print(f"lethe bench paper: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("stopped; go on with the same command and --resume", file=sys.stderr)
        return STOPPED


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    raise KeyboardInterrupt


def _report(files: Sequence[Path], out: Path) -> list[Path]:
    """Write tables and plots of one ``results.json``, or of several and what they are together."""
    if len(files) == 1:
        return write_report(Results.read(files[0]), out)
    content = together(files)
    check_folder(out, resume=True)
    make_folder(out)
    return [out / RESULTS, *write_report(write_results(content, out), out)]


def _bench(options: Options, given: argparse.Namespace) -> int:
    out: Path = given.out.absolute()
    # All that can be refused is refused before the folder is written to.
    for name in options.sources():
        files_of(options.known[name], given.data)
    reused = _known(given.reuse or ())
    check_folder(out, resume=given.resume)
    console = Console(stderr=True)
    with locked(out) as lock:
        data = {
            name: prepare(options.known[name], given.data, out / DATA / name)
            for name in options.sources()
        }
        cells = make_plan(options, data)
        bench = Bench(out, jobs(cells), given.jobs, lock.fileno(), reused)
        _announce(console, bench, sum(cell.job is None for cell in cells))
        try:
            bench.run(Display(console, len(bench.jobs), len(bench.outcomes)))
        finally:
            results = write_results(collect(options, data, cells, bench), out)
    _tell(write_report(results, out))
    failed = [job for job in bench.jobs if bench.outcome(job).status in ("failed", "missing")]
    return FAILED if failed else 0


def _known(files: Sequence[Path]) -> dict[str, Any]:
    """Return the runs of earlier benchmarks by id."""
    found: dict[str, Any] = {}
    for file in files:
        found |= Results.read(file).content["runs"]
    return found


def _announce(console: Console, bench: Bench, refused: int) -> None:
    console.print(
        f"{len(bench.jobs)} runs, {len(bench.outcomes)} of them done before; {refused} cells are "
        "not applicable",
        highlight=False,
    )


def _tell(files: Sequence[Path]) -> None:
    for file in files:
        print(file)


def _options(given: argparse.Namespace, known: Mapping[str, Preset]) -> Options:
    return Options(
        known=known,
        presets=_presets(given, known),
        amounts=[Amount.parse(text) for text in _once(given.forget or AMOUNTS)],
        seeds=given.seeds,
        first_seed=given.first_seed,
        families=_once(given.families or ()),
        rows=given.methods or (),
        parts=_once(given.parts or get_args(Part)),
        device=usable_device(given.device),
        threads=given.threads,
        references=given.references,
        settings=read_settings(given.set or ()),
    )


def _presets(given: argparse.Namespace, known: Mapping[str, Preset]) -> list[str]:
    """Return the data sets that are asked for, by name or by task; else those that are there."""
    if given.tasks is not None:
        return _once(n for asked in given.tasks for n in _meant(asked, given.data, known))
    found = _there(given.data, known)
    if given.data is None:
        return found
    paths = {name: preset.path for name, preset in known.items() if preset.path is not None}
    if not found:
        raise BenchmarkError(
            f"no data set was found in {given.data}; looked for {', '.join(_once(paths.values()))}"
        )
    missing = [name for name in paths if name not in found]
    if missing:
        print(f"not in {given.data} and left out: {', '.join(missing)}", file=sys.stderr)
    return found


def _meant(asked: str, data: Path | None, known: Mapping[str, Preset]) -> list[str]:
    """Return the data set of this name, or those of this task that are there."""
    if asked in known:
        return [asked]
    names = [name for name, preset in known.items() if preset.task == asked]
    if not names:
        raise BenchmarkError(
            f"--tasks names {asked}, which is neither a data set nor the task of one; known are "
            f"{', '.join(_tasks(known))}"
        )
    there = _there(data, known)
    found = [name for name in names if name in there]
    if not found:
        where = "there without --data" if data is None else f"in {data}"
        raise BenchmarkError(f"{asked} is the task of {', '.join(names)}, and none is {where}")
    return found


def _there(data: Path | None, known: Mapping[str, Preset]) -> list[str]:
    """Return the data sets whose files ``data`` has; without it, those that need none."""
    if data is None:
        return [name for name, preset in known.items() if preset.path is None]
    paths = {name: preset.path for name, preset in known.items() if preset.path is not None}
    return [name for name, path in paths.items() if (data / path).exists()]


def _tasks(known: Mapping[str, Preset]) -> list[str]:
    """Return what --tasks takes: data sets, then their tasks."""
    return _once([*known, *(preset.task for preset in known.values())])


def _once(names: Iterable[_Name]) -> list[_Name]:
    """Return each name once: what is named twice is run and shown once."""
    return list(dict.fromkeys(names))


def _parser(known: Mapping[str, Preset]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lethe bench paper",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of runs and results")
    add("--data", type=Path, help="folder with every data set; none: handwritten digits")
    add(
        "--presets",
        type=Path,
        action="append",
        metavar="TOML",
        help="data sets of your own, see docs/extending.md; can be repeated",
    )
    add(
        "--tasks",
        nargs="+",
        metavar="TASK",
        help="data sets, or tasks for all data sets of them; all whose files --data has. Known are "
        f"{', '.join(_tasks(known))}, and those of --presets",
    )
    add("--families", nargs="+", metavar="FAMILY", help="architectures; the first of each data set")
    add("--methods", nargs="+", metavar="METHOD", help="such as multidelete, multidelete-F; all")
    add("--parts", nargs="+", choices=get_args(Part), help="of the experiments; all")
    add("--seeds", type=positive, default=3, help="originals and draws of deleted pairs [3]")
    add(
        "--first-seed",
        type=counted,
        default=0,
        metavar="SEED",
        help="the first of them; those from 100 on are for trying settings [0]",
    )
    add(
        "--set",
        action="append",
        metavar="METHOD.NAME=VALUE",
        help="a parameter in place of its default, such as multidelete.alpha=6; can be repeated",
    )
    add(
        "--forget",
        action="append",
        metavar="AMOUNT",
        help="pairs, or a percentage of them; can be repeated. The trade-off takes the first, sizes "
        "and sequence the last [3.5%% and 17%%]",
    )
    add(
        "--references",
        type=_references,
        default=0,
        metavar="K",
        help="models trained for the attack on each pair, at least 4; each costs a training and an "
        "unlearning for every run of the part main [0: no such attack]",
    )
    add("--device", default="auto", help="cpu, cuda, cuda:1, ... [auto: cuda where there is one]")
    add("--threads", type=positive, default=1, help="of each run [1]")
    add("--jobs", type=positive, default=1, help="runs at a time; times are only fair with 1 [1]")
    add("--resume", action="store_true", help="go on with what is in the folder")
    add(
        "--reuse",
        type=Path,
        action="append",
        metavar="RESULTS",
        help="take what is in this results.json for the runs of the same id; can be repeated",
    )
    add(
        "--report",
        type=Path,
        action="append",
        metavar="RESULTS",
        help="only write tables and plots of a results.json; of several, put together: what two of them "
        "have is taken from the last one",
    )
    return parser


def _references(text: str) -> int:
    number = int(text) if text.isdecimal() else 1
    if 0 < number < LEAST_REFERENCES:
        raise argparse.ArgumentTypeError(
            f"0 or at least {LEAST_REFERENCES} was expected, and {text!r} came"
        )
    return number


if __name__ == "__main__":
    sys.exit(main())
