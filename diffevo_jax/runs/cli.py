"""The command line. A command imports what it needs, so that --help waits for nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option
from typer.core import TyperGroup

import diffevo_jax

if TYPE_CHECKING:
    from rich.console import Console

BAD_INPUT = 2
INTERRUPTED = 130


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        with errors_as_messages():
            return super().invoke(ctx)


app = typer.Typer(
    name="diffevo-jax",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


# What commands share


def _out(text: str, default: str | bool = True) -> Any:
    """An option --out. text: its help. default: what it is without, as the help shows it."""

    def without_home(path: Path | None) -> Path | None:  # shells leave ~ as it is in --out=~/x
        return path and path.expanduser()

    return Option(help=text, show_default=default, callback=without_home)


def _repeated(metavar: str, text: str) -> Any:
    """An option that may be repeated. text: its help."""
    return Option(metavar=metavar, help=f"{text} May be repeated.")


Config = Annotated[
    str, Argument(metavar="CONFIG", help="A file, a name from `list`, or a run's folder.")
]
Plugin = Annotated[
    list[Path] | None,
    _repeated("FILE", "A Python file that registers names for configs; it is run."),
]
Override = Annotated[
    list[str] | None, Option("--set", metavar="A.B=C", help="Override a setting; repeatable.")
]
Seed = Annotated[int | None, Option(help="In place of the config's seed.")]
Repeats = Annotated[int | None, Option(help="In place of the config's repeats.")]
Cache = Annotated[bool, Option(help="Keep compiled programs in the user's cache directory.")]


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """Turn what a user can mend into one message and exit code 2."""
    try:
        yield
    except (ValueError, RuntimeError, OSError, MemoryError, ModuleNotFoundError) as error:
        from diffevo_jax.checks import InputError
        from diffevo_jax.runs.config.schema import ConfigError
        from diffevo_jax.runs.run.engine import Stopped

        message, known = str(error), (ConfigError, InputError, Stopped, OSError)
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in message:
            message = f"out of memory; a smaller population or genome may fit\n{message}"
        elif not isinstance(error, known) and "pip install" not in message:
            raise
        typer.echo(f"error: {message}", err=True)
        raise typer.Exit(BAD_INPUT) from None


@contextmanager
def _interruptible(message: Callable[[], str]) -> Iterator[None]:
    """End on Ctrl-C, or on a scheduler's SIGTERM, with a message and exit code 130."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        shown = message()
        if shown:
            typer.echo(shown)
        raise typer.Exit(INTERRUPTED) from None


def _with_named(override: list[str] | None, **settings: int | None) -> list[str]:
    """Overrides, and those that have an option of their own."""
    named = [f"{key}={value}" for key, value in settings.items() if value is not None]
    return [*(override or []), *named]


def _console(*, quiet: bool = False) -> "Console":
    """One that prints words as they are, and breaks no line: a command in it can be pasted."""
    from rich.console import Console

    return Console(markup=False, highlight=False, soft_wrap=True, quiet=quiet)


def _version(shown: bool) -> None:
    if shown:
        typer.echo(f"diffevo-jax {diffevo_jax.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Diffusion Evolution in JAX: evolutionary search as denoising."""


# Runs


@app.command()
def run(
    config: Config,
    override: Override = None,
    seed: Seed = None,
    repeats: Repeats = None,
    out: Annotated[Path | None, _out("New folder for the results.", "runs/NAME-DATE-TIME")] = None,
    resume: Annotated[
        bool, Option("--resume", help="Go on with the run that --out holds, or start it.")
    ] = False,
    plugin: Plugin = None,
    log: Annotated[
        Literal["tensorboard"] | None,
        Option(help="Also write scalars as it goes, into OUT/tensorboard."),
    ] = None,
    distributed: Annotated[
        bool,
        Option(
            "--distributed",
            help="This is one of many processes that share each population. Slurm or Open MPI "
            "says which; elsewhere the next three options do.",
        ),
    ] = False,
    coordinator: Annotated[
        str | None, Option(metavar="HOST:PORT", help="Where process 0 is.")
    ] = None,
    processes: Annotated[int | None, Option(help="How many processes there are.")] = None,
    process: Annotated[int | None, Option(help="Which one this is, from 0.")] = None,
    cache: Cache = True,
) -> None:
    """Run a config: evolve every method over every repeat, save the results, draw the figure."""
    from diffevo_jax.runs.config import plugins
    from diffevo_jax.runs.config.experiment import load
    from diffevo_jax.runs.config.files import find_config, shown
    from diffevo_jax.runs.results import folder as results
    from diffevo_jax.runs.results import scalars
    from diffevo_jax.runs.results.files import quoted
    from diffevo_jax.runs.run import engine, startup
    from diffevo_jax.runs.run import processes as many

    overrides = _with_named(override, seed=seed, repeats=repeats)
    path, out = _to_resume(config, out) if resume else (find_config(config), out)
    # Before the config is read: Gymnax, which knows the tasks, starts JAX.
    startup.prepare(cache=cache)
    many.connect(distributed, coordinator, processes, process)
    with many.ending_together(), errors_as_messages():
        if log:
            scalars.check()
        sources = plugins.load(plugin or ())
        settings = load(path, overrides).config
        programs = engine.build(settings, mesh=many.mesh() if distributed else None)
        if not resume and results.is_unfinished(Path(config)):
            typer.echo(
                f"{config} is unfinished; this is a new run of its config. "
                f"`diffevo-jax run {quoted(config)} --resume` goes on with it."
            )
        folder = many.on_first(results.create, out, settings.name, resume=resume)
        source = " ".join([shown(path), *(f"--set {text}" for text in overrides)])
        _run_into(folder, settings, programs, bool(log), source=source, sources=sources)


def _run_into(folder: Path, settings, programs, log: bool, **origin: Any) -> None:
    """Run into a folder; show progress, results and figure."""
    from diffevo_jax.runs.report import figure, table
    from diffevo_jax.runs.results import scalars
    from diffevo_jax.runs.results.files import quoted
    from diffevo_jax.runs.run import engine
    from diffevo_jax.runs.run.processes import is_first, on_first

    console = _console(quiet=not is_first())
    lengths = {name: program.num_levels for name, program in programs.items()}
    console.print(
        f"{settings.description or settings.name}\n{table.header(settings, lengths)} -> {folder}"
    )

    def interrupted() -> str:
        goes_on = f"`diffevo-jax run {quoted(folder)} --resume` goes on."
        return f"Interrupted. {_kept(folder)}\n{goes_on}" if is_first() else ""

    logging = nullcontext()
    if log and is_first():
        logging = scalars.tensorboard(folder)
        console.print(f"tensorboard --logdir {quoted(folder / scalars.FOLDER)}", style="dim")
    bars = _progress_bars(settings, lengths, console)
    try:
        with _interruptible(interrupted), bars as progress, logging as logged:
            summaries = engine.run(
                settings,
                programs,
                folder,
                progress=progress,
                say=console.print,
                log=logged,
                **origin,
            )
    except engine.Stopped as stopped:
        raise engine.Stopped(f"{stopped}\n{on_first(_kept, folder)}") from None
    console.print(*table.of_run(summaries), sep="\n")
    if is_first():
        console.print(*figure.draw(folder), sep="\n", style="dim")


def _to_resume(config: str, out: Path | None) -> tuple[Path, Path]:
    """Config and folder of a run to resume: by both, or by its folder alone."""
    from diffevo_jax.runs.config.files import find_config
    from diffevo_jax.runs.config.schema import ConfigError
    from diffevo_jax.runs.results import folder as results
    from diffevo_jax.runs.results.files import quoted

    folder = Path(config)
    if (folder / "config.yaml").is_file():
        return folder / "config.yaml", out or folder
    if out is not None:
        return find_config(config), out
    if folder.is_dir() and results.is_begun(folder):
        raise ConfigError(
            f"--resume: {folder} holds no config yet; start it with its config: "
            f"`diffevo-jax run CONFIG --out {quoted(folder)} --resume`"
        )
    expected = "a run folder, or a config and its --out FOLDER"
    raise ConfigError(f"--resume: expected {expected}; seen {config}")


def _kept(folder: Path) -> str:
    """Say what a run that ended early has kept."""
    from diffevo_jax.runs.results.folder import finished_repeats

    methods = finished_repeats(folder).items()
    counts = [f"{n} repeat{'s'[: n > 1]} of {method}" for method, n in methods if n]
    return f"Kept in {folder}: {', '.join(counts) or 'the config; no repeat had finished'}."


@contextmanager
def _progress_bars(settings, lengths: dict[str, int], console: "Console"):
    """One bar a method over its repeats and generations; none where nothing is run.

    lengths: generations of a repeat, by method.
    """
    from rich import progress as bars

    bar = bars.Progress(
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left"),
        bars.TimeRemainingColumn(),
        console=console,
    )
    totals = {name: settings.repeats * length for name, length in lengths.items()}
    tasks = {
        name: bar.add_task(method.label, total=totals[name])
        for name, method in settings.methods.items()
    }

    def progress(name: str, repeats: int, generations: int, compiling: bool) -> None:
        bar.start()
        label = settings.methods[name].label + ("  compiling" if compiling else "")
        done = repeats * lengths[name] + generations
        bar.update(tasks[name], completed=done, description=label)

    try:
        yield progress
    finally:
        if bar.live.is_started:
            bar.stop()


@app.command()
def sweep(
    config: Config,
    executor: Annotated[
        Literal["local", "slurm", "debug"],
        Option(help="local: one job after the other; slurm: an array; debug: no job."),
    ] = "local",
    override: Override = None,
    seed: Seed = None,
    repeats: Repeats = None,
    out: Annotated[
        Path | None, _out("Folder of the sweep; what is finished in it is kept.", "runs/NAME")
    ] = None,
    only: Annotated[list[int] | None, _repeated("POINT", "Only this point.")] = None,
    plugin: Plugin = None,
    cache: Cache = True,
) -> None:
    """Run every point of a sweep that is not finished, many as one program, into one table."""
    import jax

    from diffevo_jax.runs.config.files import find_config
    from diffevo_jax.runs.run import jobs

    path = find_config(config)
    if executor != "debug":
        jax.config.update("jax_platforms", "cpu")  # accelerators are for the jobs
    with _interruptible(lambda: "Interrupted. The same command goes on from what is finished."):
        failed = jobs.sweep(
            path,
            _with_named(override, seed=seed, repeats=repeats),
            executor=executor,
            out=out,
            only=only or (),
            plugin=plugin or (),
            cache=cache,
            say=typer.echo,
            finish=lambda folder: _show_sweep(folder, if_any=True),
        )
    for line in failed:
        typer.echo(f"failed: {line}", err=True)
    if failed:
        raise typer.Exit(1)


def _show_sweep(folder: Path, *, if_any: bool = False) -> None:
    """Write a sweep's summary.csv, print its table, draw its figure.

    if_any: nothing where no point has finished, else an error.
    """
    from diffevo_jax.runs.report import figure
    from diffevo_jax.runs.report import table as shown
    from diffevo_jax.runs.results import table

    try:
        loaded, rows = table.summaries(folder)
    except table.Unfinished:
        if if_any:
            return
        raise
    table.write_summary(folder, rows)
    description = loaded.data.get("description", loaded.name)
    console = _console()
    console.print(*shown.of_sweep(description, rows, folder / "summary.csv"), sep="\n")
    console.print(*figure.draw_sweep(folder, loaded, rows), sep="\n")


# Configs


@app.command("list")
def list_configs() -> None:
    """List the configs that come with the package, under the command that runs them."""
    from diffevo_jax.runs.config.files import config_folder, summaries

    configs = summaries(config_folder())
    width = max((len(name) for name, _, _ in configs), default=0)
    for command in ("run", "sweep"):
        typer.echo(f"diffevo-jax {command} NAME")
        for name, kind, description in configs:
            if kind == command:
                typer.echo(f"  {name:<{width}}  {description}")
    typer.echo("diffevo-jax reproduce\n  every figure and table of the paper, in a clone")


@app.command()
def init(
    name: Annotated[str, Argument(metavar="NAME", help="The experiment's name.")] = "my_experiment",
    problem: Annotated[str, Option(metavar="KIND", help="function, control or bbob.")] = "control",
    out: Annotated[Path | None, _out("The new file.", "NAME.yaml")] = None,
) -> None:
    """Write a commented config to start from: it runs as it is, and says what may be set."""
    from diffevo_jax.runs.config.files import starter
    from diffevo_jax.runs.config.schema import ConfigError
    from diffevo_jax.runs.results.files import quoted, write_whole

    name = name.removesuffix(".yaml")
    path = out or Path(f"{name}.yaml")
    text = starter(name, problem, path)
    if path.exists():
        raise ConfigError(f"{path}: exists; choose another NAME or --out FILE")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
    typer.echo(f"{path}: run it with `diffevo-jax run {quoted(path)}`")


# Pictures of what is finished


@app.command()
def plot(
    folder: Annotated[Path, Argument(metavar="RUN", help="The folder of a run or a sweep.")],
    plugin: Plugin = None,
) -> None:
    """Draw the figure of a run or a sweep again, into its folder, from its files alone."""
    from diffevo_jax.runs.config import plugins
    from diffevo_jax.runs.report import figure
    from diffevo_jax.runs.results.folder import folder_kind

    plugins.load(plugin or ())
    if folder_kind(folder) == "sweep":
        return _show_sweep(folder)
    for path in figure.draw(folder):
        typer.echo(path)


@app.command()
def compare(
    runs: Annotated[list[Path], Argument(metavar="RUN", help="Run folders on the same problem.")],
    method: Annotated[list[str] | None, _repeated("NAME", "Only this method of each run.")] = None,
    out: Annotated[Path, _out("The figure: NAME.png, .pdf or .svg.")] = Path("comparison.png"),
) -> None:
    """Hold runs, or the methods of one, against each other: a table and one figure.

    Differences are to the first run, or method, and paired where seeds agree.
    """
    from diffevo_jax.runs.report import figure, table

    groups, alone = table.groups(table.load_rows(runs, method or ()))
    console = _console()
    for group in groups:
        console.print(*table.of_comparison(group), sep="\n")
    if alone:
        console.print(f"Left out, on other problems: {', '.join(row.label for row in alone)}")
    console.print(str(figure.draw_comparison(groups, out)), style="dim")


@app.command()
def animate(
    folder: Annotated[Path, Argument(metavar="RUN", help="A run folder.")],
    method: Annotated[
        list[str] | None, _repeated("NAME", "Of this method; best policies take several.")
    ] = None,
    repeat: Annotated[int, Option(help="Which repeat, from 0.")] = 0,
    generation: Annotated[
        list[int] | None,
        _repeated(
            "NUMBER",
            "Control tasks: individuals of this generation, from 1, a panel each, in place of the "
            "best policy.",
        ),
    ] = None,
    episodes: Annotated[int, Option(min=1, help="Control tasks: fresh episodes of each.")] = 1,
    out: Annotated[
        Path | None, _out("NAME.gif; NAME.mp4 with ffmpeg.", "RUN/animation.gif")
    ] = None,
    plugin: Plugin = None,
) -> None:
    """Animate a run: its best policies at work, or its population on the landscape.

    Control tasks with a drawing: CartPole, Acrobot, MountainCar, MountainCarContinuous, Pendulum.
    """
    from diffevo_jax.runs.config import plugins
    from diffevo_jax.runs.report import animate as animation

    plugins.load(plugin or ())
    path = animation.animate(
        folder,
        out or folder / "animation.gif",
        methods=method or (),
        repeat=repeat,
        generations=generation or (),
        episodes=episodes,
        say=typer.echo,
    )
    typer.echo(path)


@app.command()
def rollout(
    run: Annotated[Path, Argument(metavar="RUN", help="The folder of a run, or a champion.npz.")],
    method: Annotated[str | None, Option(help="The best of this method.")] = None,
    repeat: Annotated[int | None, Option(help="Of this repeat, from 0.")] = None,
    episodes: Annotated[int, Option(min=1, help="Fresh episodes that it is evaluated over.")] = 100,
    seed: Annotated[int, Option(help="Of those episodes.")] = 0,
    record: Annotated[
        Path | None, _out("NAME.npz: its first episodes, whole: states, actions, rewards.", False)
    ] = None,
    draw: Annotated[
        Path | None, _out("NAME.gif, or .mp4 with ffmpeg; NAME.html of Brax.", False)
    ] = None,
    shown: Annotated[int, Option(min=1, help="How many episodes are recorded or drawn.")] = 1,
    plugin: Plugin = None,
) -> None:
    """Roll out the best policy of a control task: its returns, a record, a picture."""
    from diffevo_jax.runs.config import plugins
    from diffevo_jax.runs.report import rollout as report
    from diffevo_jax.runs.results import champion

    plugins.load(plugin or ())
    chosen = champion.load(run, method=method, repeat=repeat)
    for line in report.rollout(chosen, episodes, seed, record=record, draw=draw, shown=shown):
        typer.echo(line)


# Searches


@app.command()
def search(
    journal: Annotated[Path, Argument(metavar="JOURNAL", help="`journal=` of de.minimize.")],
    plot: Annotated[
        Path | None,
        _out("NAME.png, .pdf or .svg: progress, the best, what matters, slices.", False),
    ] = None,
    csv: Annotated[Path | None, _out("NAME.csv: a row an evaluation.", False)] = None,
) -> None:
    """Show what a search has found, from its journal, also while it runs."""
    from diffevo_jax.runs.report import search as report

    loaded = report.load(journal)
    _console().print(*report.lines(journal, loaded), sep="\n")
    if csv:
        report.write_csv(csv, loaded)
        typer.echo(csv)
    if plot:
        report.draw(plot, loaded)
        typer.echo(plot)


# The paper, and the machine


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def reproduce(context: typer.Context) -> None:
    """Run every figure and table of the paper, and report them beside the published numbers.

    In a clone of the repository: `python -m experiments.reproduce`, whose options these are:
    --only NAME, --quick, --out FOLDER, --no-cache.
    """
    root = Path(diffevo_jax.__file__).resolve().parent.parent
    if not (root / "experiments" / "reproduce.py").is_file():
        raise ModuleNotFoundError(
            "reproduce needs a clone of the repository, with its folder experiments/, "
            "installed by `pip install --editable .`; this is the package alone"
        )
    command = [sys.executable, "-P", "-m", "experiments.reproduce", *context.args]
    raise typer.Exit(_call(command, root))


def _call(command: list[str], root: Path) -> int:
    """Run a command on a checkout; its exit code, also after Ctrl-C, which reaches it too."""
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(root)}) as process:
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue  # it says what it has kept


@app.command()
def info() -> None:
    """Show versions, devices, and the kernel that would run on them."""
    from diffevo_jax.kernels import platforms as kernels
    from diffevo_jax.runs.results.folder import environment

    machine = environment()
    for name, version in machine["versions"].items():
        typer.echo(f"{name:<12} {version}")
    devices = f"{machine['device_count']} x {machine['device']} ({machine['backend']})"
    typer.echo(f"{'device':<12} {devices}")
    typer.echo(f"{'estimator':<12} {kernels.explain()}")
