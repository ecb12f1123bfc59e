"""The command ``tracejit``: run, check and look at programs, and at the machine."""

from __future__ import annotations

import ast
import importlib
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tracejit import errors
from tracejit.files import atomic

app = typer.Typer(
    name="tracejit",
    help="A tracing tensor JIT for CPUs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"tracejit {version('tracejit')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """A tracing tensor JIT for CPUs."""


ProgramPath = Annotated[Path, typer.Argument(help="A NeuralScript program (.ns).")]


def _pairs(items: list[str], option: str) -> dict[str, str]:
    """Split ``name=value`` items."""
    pairs: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise errors.ValueArgumentError(
                f"{option} {item}: expected NAME=VALUE", hint=f"for example {option} steps=10"
            )
        pairs[name] = value
    return pairs


def _literal(text: str) -> Any:
    """Read a setting: a number, a bool, or else a string."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _read_array(path: str) -> Any:
    if not Path(path).is_file():
        raise errors.ValueArgumentError(f"no file {path}")
    import numpy as np  # as everywhere below, so that --help is there at once

    return np.load(path, allow_pickle=False)


def _save(arrays: Mapping[str, Any]) -> None:
    """Write each value to its path as an array; a file is written whole or not at all."""
    import numpy as np

    for path, array in arrays.items():
        with atomic(Path(path), "wb") as stream:
            np.save(stream, np.asarray(array))


@app.command()
def run(
    program: ProgramPath,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Set a constant or parameter: NAME=VALUE.")
    ] = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="Bind an array: NAME=FILE.npy.")
    ] = None,
    outputs: Annotated[
        list[str] | None, typer.Option("--output", help="Save a result: NAME=FILE.npy.")
    ] = None,
    report: Annotated[bool, typer.Option(help="Print what was compiled and how it ran.")] = True,
) -> None:
    """Run a NeuralScript program, then say what was compiled."""
    from tracejit.frontend import neuralscript

    given = {k: _literal(v) for k, v in _pairs(settings or [], "--set").items()}
    arrays = {k: _read_array(v) for k, v in _pairs(inputs or [], "--input").items()}
    wanted = _pairs(outputs or [], "--output")

    def execute(write: Callable[[str], Any]) -> Mapping[str, Any]:
        return neuralscript.run_program(program, given, arrays, write=write)

    started = time.perf_counter()
    results = execute(sys.stdout.write)
    _save({path: results[name] for name, path in wanted.items()})
    if report:
        _report(time.perf_counter() - started, lambda: execute(lambda text: None))


def _report(first: float, again: Callable[[], Any]) -> None:
    """Print the kernels, and the program's time compiled (warm) against interpreted.

    The first run, which took ``first`` seconds, may have been over before its kernels were made:
    the next one waits for them.
    """
    from tracejit import config
    from tracejit.runtime import monitor
    from tracejit.viz import terminal

    with monitor.recording(everything=True) as runs:
        again()
    compiled = _best_of_three(again)
    with config.override(disable_jit=True):
        interpreted = _best_of_three(again)
    terminal.print_report(list(runs), first, compiled, interpreted)


def _best_of_three(program: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds of a program's fastest run, and those of its graphs alone."""
    from tracejit.runtime import monitor

    times: list[tuple[float, float]] = []
    for _ in range(3):
        started = time.perf_counter()
        with monitor.recording() as runs:
            program()
        total = time.perf_counter() - started
        times.append((total, sum(r.seconds for r in runs) + runs.interpreted))
    return min(times)


@app.command()
def check(program: ProgramPath) -> None:
    """Check a NeuralScript program without running it."""
    from tracejit.frontend import neuralscript

    diagnostics = neuralscript.check_program(program)
    for diagnostic in diagnostics:
        print(diagnostic, file=sys.stderr)
    if diagnostics:
        raise typer.Exit(1)
    print(f"{program}: no errors")


@app.command()
def viz(
    what: Annotated[
        str, typer.Argument(help="A program (prog.ns) or a function (module:function).")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="A .html page, .dot, .svg or .json file.")
    ] = Path("graph.html"),
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--arg", help="An example argument of a function: a dtype and shape, f32[8,8]."
        ),
    ] = None,
    tree: Annotated[bool, typer.Option("--tree", help="Print a tree instead of a file.")] = False,
) -> None:
    """Write the dataflow graph of a program or a function, with its kernels."""
    from tracejit.viz import command

    if tree:
        command.print_tree(what, inputs or [])
        return
    written = command.visualise(what, output, inputs or [])
    print(f"wrote {written}")


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "help_option_names": [],  # the benchmarks describe their own options
    }
)
def bench(context: typer.Context) -> None:
    """Time tracejit against the array libraries that are installed (--help: its options)."""
    raise typer.Exit(_benchmarks().main(context.args))


def _benchmarks() -> Any:
    """Import the microbenchmarks: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent
    if (package / "benchmarks").is_dir():
        return importlib.import_module("tracejit.benchmarks.command")
    if str(package.parent) not in sys.path:
        sys.path.insert(0, str(package.parent))
    return importlib.import_module("benchmarks.command")


@app.command()
def info(
    ops: Annotated[bool, typer.Option("--ops", help="List every op and how it runs.")] = False,
) -> None:
    """Show the processor, the instruction sets, the caches and the versions; or the ops."""
    from tracejit.viz import terminal

    if ops:
        terminal.print_ops()
    else:
        terminal.print_machine()


@app.command()
def tune(
    what: Annotated[
        str | None,
        typer.Argument(help="A program (prog.ns) or a function (file.py:function); else products."),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--arg", help="An example argument of a function: f32[8,8]."),
    ] = None,
    shapes: Annotated[
        list[str] | None, typer.Option("--shape", help="A product: n, or MxNxK. May be repeated.")
    ] = None,
    dtypes: Annotated[
        list[str] | None, typer.Option("--dtype", help="float32 or float64; else both.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="Time for each comparison.")] = 1.0,
    count: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads to measure with; else all.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print what was measured.")] = False,
    reset: Annotated[bool, typer.Option("--reset", help="Remove what was measured.")] = False,
) -> None:
    """Measure how matrix products are cut fastest on this machine, and keep it for later runs."""
    from tracejit import config
    from tracejit.runtime import threads
    from tracejit.viz import tuning

    if reset:
        tuning.reset()
    if show:
        tuning.show()
    if show or reset:
        return
    chosen = tuning.programs(what, inputs or [], shapes or [], dtypes or [])
    # What is tried once is not worth a place on the disk.
    with config.override(disk_cache=0), threads.num_threads(count or threads.get_num_threads()):
        tuning.tune(chosen, seconds)


cache_app = typer.Typer(help="Look at the compiled code on disk, or remove it.")
app.add_typer(cache_app, name="cache", no_args_is_help=True)


@cache_app.command("path")
def cache_path() -> None:
    """Print the folder."""
    from tracejit.runtime import cache

    print(cache.disk().folder)


@cache_app.command("list")
def cache_list(
    limit: Annotated[int, typer.Option(help="Show at most so many, the last used first.")] = 40,
) -> None:
    """List the kernels: what they compute, for which instruction set, and what they cost."""
    from tracejit.runtime import cache
    from tracejit.viz import terminal

    terminal.print_cache(list(cache.disk().entries()), cache.disk(), limit)


@cache_app.command("verify")
def cache_verify(
    remove: Annotated[bool, typer.Option("--remove", help="Remove what is damaged.")] = False,
) -> None:
    """Check every entry against its checksum; exit code 1 if one is damaged."""
    from tracejit.runtime import cache

    disk = cache.disk()
    entries = list(disk.entries())
    damaged = [e.name for e in entries if e.entry is None]
    for name in damaged:
        print(f"{os.path.join(disk.folder, 'code', name)}: damaged", file=sys.stderr)
        if remove:
            disk.drop(name)
    print(
        f"{len(entries)} entries, {len(damaged)} damaged{', removed' if damaged and remove else ''}"
    )
    if damaged and not remove:
        raise typer.Exit(1)


@cache_app.command("clear")
def cache_clear() -> None:
    """Remove all compiled code from the disk. Running programs keep what they have."""
    from tracejit.runtime import cache

    print(f"removed {cache.disk().clear()} entries")


def main() -> None:
    """Run the command; a TracejitError is a message and exit code 1, not a traceback."""
    try:
        app()
    except errors.TracejitError as error:
        shown = str(error)  # a program's errors begin with their own "error[…]"
        print(shown if shown.startswith("error[") else f"error: {shown}", file=sys.stderr)
        sys.exit(1)
    except KeyError as error:
        print(f"error: {error.args[-1] if error.args else error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"error: {what}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
