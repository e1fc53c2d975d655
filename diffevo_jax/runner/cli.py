"""The command line. A command imports what it needs, so that --help waits for nothing."""

import signal
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="diffevo-jax",
    help="Diffusion Evolution in JAX: evolutionary search as denoising.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Executor(StrEnum):
    """Where the jobs of a sweep run, by submitit's names."""

    local = "local"
    slurm = "slurm"
    debug = "debug"


class Log(StrEnum):
    """What a run also writes as it goes."""

    tensorboard = "tensorboard"


_Cache = Annotated[
    bool,
    typer.Option(help="Keep compiled programs in the user's cache directory for the next run."),
]
_Plugin = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        help="A Python file that registers names for configs; it is run. May be repeated.",
    ),
]
_Override = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Override a setting; may be repeated."),
]
_Seed = Annotated[int | None, typer.Option(help="In place of the config's seed.")]
_Repeats = Annotated[int | None, typer.Option(help="In place of the config's repeats.")]
_BAD_INPUT = 2
_INTERRUPTED = 130


def _version(asked: bool) -> None:
    if asked:
        from diffevo_jax import __version__

        typer.echo(f"diffevo-jax {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Diffusion Evolution in JAX: evolutionary search as denoising."""


@app.command()
def run(
    config: Annotated[
        str,
        typer.Argument(metavar="CONFIG", help="A YAML file, a name from `list`, or a run folder."),
    ],
    override: _Override = None,
    seed: _Seed = None,
    repeats: _Repeats = None,
    out: Annotated[
        Path | None,
        typer.Option(help="New folder for the results.", show_default="runs/NAME-DATE-TIME"),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the run that --out holds; start it where there is none."
        ),
    ] = False,
    plugin: _Plugin = None,
    log: Annotated[
        Log | None,
        typer.Option(help="Also write scalars as it goes, into OUT/tensorboard."),
    ] = None,
    distributed: Annotated[
        bool,
        typer.Option(
            "--distributed",
            help="One of many processes that share each population; which one say SLURM, Open MPI "
            "or the next three.",
        ),
    ] = False,
    coordinator: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where process 0 can be reached.")
    ] = None,
    processes: Annotated[int | None, typer.Option(help="How many processes there are.")] = None,
    process: Annotated[int | None, typer.Option(help="Which one this is, from 0.")] = None,
    cache: _Cache = True,
) -> None:
    """Run a config: evolve every method over every repeat, save the results, draw the figure."""
    with _errors_for_people():
        from diffevo_jax.runner.config import find_config, load_config
        from diffevo_jax.runner.plugins import load

        override = _with(override, seed=seed, repeats=repeats)
        path, out = _to_resume(config, out) if resume else (find_config(config), out)

        from diffevo_jax.runner import processes as many
        from diffevo_jax.runner import results, scalars, startup
        from diffevo_jax.runner import run as runner

        # Before the config is read: Gymnax, which knows the tasks, starts JAX.
        startup.use_all_cores()
        startup.use_graphs()
        if cache:
            startup.keep_compiled()
        many.connect(distributed, coordinator, processes, process)

        source = " ".join([str(path), *(f"--set {text}" for text in override)])
        with many.ending_together(), _errors_for_people():
            if log is not None:
                scalars.check()
            sources = load(plugin or ())
            settings = load_config(path, override)
            programs = runner.build(settings, mesh=many.mesh() if distributed else None)
            folder = many.on_first(results.create, out, settings.name, resume=resume)
            _run_into(folder, settings, programs, source, sources, log)


def _run_into(folder: Path, settings, programs, source, sources, log: Log | None) -> None:
    """Run into a folder; show progress, results and figure."""
    from rich.console import Console

    from diffevo_jax.runner import display, figure, scalars, words
    from diffevo_jax.runner import run as runner
    from diffevo_jax.runner.processes import is_first, on_first

    console = Console(markup=False, quiet=not is_first())
    lengths = {name: program.num_levels for name, program in programs.items()}
    console.print(f"{settings.description}\n{words.header(settings, lengths)} -> {folder}")
    signal.signal(signal.SIGTERM, _interrupt)  # a scheduler's time limit keeps the results too
    try:
        with ExitStack() as held:
            progress = held.enter_context(display.progress_bar(settings, lengths, console))
            logged = scalars.nowhere
            if log is not None and is_first():
                logged = held.enter_context(scalars.tensorboard(folder))
                console.print(f"tensorboard --logdir {folder / scalars.FOLDER}", style="dim")
            summaries = runner.run(
                settings,
                programs,
                folder,
                source=source,
                sources=sources,
                progress=progress,
                say=console.print,
                log=logged,
            )
    except KeyboardInterrupt:
        if is_first():
            console.print(f"Interrupted. {_kept(folder)}")
            console.print(f"`diffevo-jax run {folder} --resume` goes on.")
        raise typer.Exit(_INTERRUPTED) from None
    except runner.Stopped as stopped:
        raise runner.Stopped(f"{stopped}\n{on_first(_kept, folder)}") from None
    for line in display.table(summaries):
        console.print(line)
    if is_first():
        for drawn in figure.draw(folder):
            console.print(drawn, style="dim", highlight=False)


@app.command()
def sweep(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A YAML file with a section `sweep`, or a name.")
    ],
    executor: Annotated[
        Executor,
        typer.Option(
            help="local: one job after the other; slurm: an array; debug: in this process."
        ),
    ] = Executor.local,
    override: _Override = None,
    seed: _Seed = None,
    repeats: _Repeats = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the sweep; what is finished in it is kept.", show_default="runs/NAME"
        ),
    ] = None,
    only: Annotated[
        list[int] | None,
        typer.Option(metavar="POINT", help="Only this point; may be repeated."),
    ] = None,
    plugin: _Plugin = None,
    cache: _Cache = True,
) -> None:
    """Run every point of a sweep that is not finished, many as one program, into one table."""
    with _errors_for_people():
        import jax

        from diffevo_jax.runner import sweep_summary
        from diffevo_jax.runner.config import find_config, repeats_of_sweep
        from diffevo_jax.runner.sweep import sweep as run_sweep

        path = find_config(config)
        named = {} if repeats is None else {repeats_of_sweep(path, override): repeats}
        override = _with(override, seed=seed, **named)

        if executor is not Executor.debug:
            jax.config.update("jax_platforms", "cpu")  # accelerators are for the jobs
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            failed = run_sweep(
                path,
                override,
                executor=executor.value,
                out=out,
                only=only or (),
                plugin=plugin or (),
                cache=cache,
                say=typer.echo,
                finish=lambda folder: sweep_summary.show(folder, _console(), if_any=True),
            )
        except KeyboardInterrupt:
            typer.echo("Interrupted. The same command goes on from what is finished.")
            raise typer.Exit(_INTERRUPTED) from None
    for line in failed:
        typer.echo(f"failed: {line}", err=True)
    if failed:
        raise typer.Exit(1)


@app.command("list")
def list_configs() -> None:
    """List the configs that come with the package, under the command that runs them."""
    with _errors_for_people():
        from diffevo_jax.runner.config import config_folder, summaries

        found = summaries(config_folder())
        width = max((len(name) for name, _, _ in found), default=0)
        for command in ("run", "sweep"):
            typer.echo(f"diffevo-jax {command} NAME")
            for name, kind, description in found:
                if kind == command:
                    typer.echo(f"  {name:<{width}}  {description}")
        typer.echo("diffevo-jax reproduce\n  every figure and table of the paper, in a clone")


@app.command()
def init(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The experiment's name.")
    ] = "my_experiment",
    problem: Annotated[
        str, typer.Option(metavar="KIND", help="function, control or bbob.")
    ] = "control",
    out: Annotated[
        Path | None, typer.Option(help="The new file.", show_default="NAME.yaml")
    ] = None,
) -> None:
    """Write a commented config to start from: it runs as it is, and says what may be set."""
    with _errors_for_people():
        from diffevo_jax.runner import starter
        from diffevo_jax.runner.config import ConfigError
        from diffevo_jax.runner.folders import write_whole

        path = out or Path(f"{name}.yaml")
        text = starter.write(name, problem, path)
        if path.exists():
            raise ConfigError(f"{path}: exists; choose another NAME or --out FILE")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
        typer.echo(f"{path}: run it with `diffevo-jax run {path}`")


@app.command()
def plot(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run or a sweep.")],
    plugin: _Plugin = None,
) -> None:
    """Draw the figure of a run or a sweep again, into its folder, from its files alone."""
    with _errors_for_people():
        from diffevo_jax.runner import figure, plugins, results

        plugins.load(plugin or ())

        if results.folder_kind(folder) == "sweep":
            from diffevo_jax.runner import sweep_summary

            return sweep_summary.show(folder, _console())
        for path in figure.draw(folder):
            typer.echo(path)


@app.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Run folders on the same problem.")
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this method of each run; may be repeated."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The figure: NAME.png, .pdf or .svg.")] = Path(
        "comparison.png"
    ),
) -> None:
    """Hold runs, or the methods of one, against each other: a table and one figure.

    Differences are to the first run, or method, and paired where seeds agree.
    """
    with _errors_for_people():
        from diffevo_jax.runner import compare as comparison

        shared, alone = comparison.groups(comparison.load_lines(runs, method or ()))
        console = _console()
        for group in shared:
            for line in comparison.tables(group):
                console.print(line)
        if alone:
            console.print(f"Left out, on other problems: {', '.join(each.label for each in alone)}")
        console.print(comparison.draw(shared, out), style="dim")


@app.command()
def animate(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Of this method; may be repeated for best policies."),
    ] = None,
    repeat: Annotated[int, typer.Option(help="Which repeat, from 0.")] = 0,
    generation: Annotated[
        list[int] | None,
        typer.Option(
            metavar="NUMBER",
            help="Control tasks: individuals of this generation, from 1, in place of the best "
            "policy; may be repeated, a panel each.",
        ),
    ] = None,
    episodes: Annotated[
        int, typer.Option(min=1, help="Control tasks: fresh episodes an individual.")
    ] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="NAME.gif, or NAME.mp4 with ffmpeg.", show_default="RUN/animation.gif"),
    ] = None,
    plugin: _Plugin = None,
) -> None:
    """Animate a run: its best policies at work, or its population on the landscape.

    Control tasks with a drawing: CartPole, Acrobot, MountainCar, MountainCarContinuous, Pendulum.
    """
    with _errors_for_people():
        from diffevo_jax.runner import plugins

        plugins.load(plugin or ())
        from diffevo_jax.runner import animate as animation

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
def reproduce(
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this figure or table; may be repeated."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few repeats: minutes, and wide errors.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the report; what is finished in it is kept.",
            show_default="runs/reproduce, with --quick runs/reproduce-quick",
        ),
    ] = None,
    cache: _Cache = True,
) -> None:
    """Run every figure and table of the paper, and report them beside the published numbers."""
    with _errors_for_people():
        from diffevo_jax.runner import startup

        startup.use_all_cores()
        startup.use_graphs()
        if cache:
            startup.keep_compiled()
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            failed = _from_clone("reproduce").reproduce(only, quick=quick, out=out, say=typer.echo)
        except KeyboardInterrupt:
            typer.echo("Interrupted. The same command goes on from what is finished.")
            raise typer.Exit(_INTERRUPTED) from None
    if failed:
        typer.echo(f"error: not reproduced: {', '.join(failed)}; the report says why", err=True)
        raise typer.Exit(1)


@app.command()
def info() -> None:
    """Show versions, devices, and the kernel that would run on them."""
    from diffevo_jax.estimator import kernels
    from diffevo_jax.runner.results import environment

    seen = environment()
    for name, version in seen["versions"].items():
        typer.echo(f"{name:<12} {version}")
    typer.echo(f"{'device':<12} {seen['device_count']} x {seen['device']} ({seen['backend']})")
    typer.echo(f"{'estimator':<12} {kernels.explain()}")


def _with(override: list[str] | None, **settings: int | None) -> list[str]:
    """Overrides, and those that have an option of their own."""
    named = [f"{key}={value}" for key, value in settings.items() if value is not None]
    return [*(override or []), *named]


def _to_resume(config: str, out: Path | None) -> tuple[Path, Path]:
    """Config and folder of a run to resume: given by both, or by its folder alone."""
    from diffevo_jax.runner import results
    from diffevo_jax.runner.config import ConfigError, find_config

    folder = Path(config)
    if (folder / "config.yaml").is_file():
        return folder / "config.yaml", out or folder
    if out is None:
        message = (
            f"--resume: expected a run folder, or a config and its --out FOLDER; seen {config}"
        )
        if folder.is_dir() and results.is_begun(folder):
            message = (
                f"--resume: {folder} holds no config yet; start it with its config: "
                f"`diffevo-jax run CONFIG --out {folder} --resume`"
            )
        raise ConfigError(message)
    return find_config(config), out


def _from_clone(name: str):
    """Import one of the experiments, which a clone of the repository has and the package has not.

    Raises ConfigError where there is no clone.
    """
    import importlib
    import sys

    root = Path(__file__).resolve().parent.parent.parent
    if not (root / "experiments" / f"{name}.py").is_file():
        from diffevo_jax.runner.config import ConfigError

        raise ConfigError(
            f"{name} needs a clone of the repository, with its folder experiments/, installed by "
            "`pip install --editable .`; this is the package alone"
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return importlib.import_module(f"experiments.{name}")


def _console():
    from rich.console import Console

    return Console(markup=False, highlight=False)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def _errors_for_people():
    """Turn what a user can mend into one message and exit code 2."""
    try:
        yield
    except (ValueError, RuntimeError, OSError, MemoryError, ModuleNotFoundError) as error:
        from diffevo_jax.runner.config import ConfigError
        from diffevo_jax.runner.run import Stopped

        message = str(error)
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in message:
            message = f"out of memory; a smaller population or genome may fit\n{message}"
        elif (
            not isinstance(error, ConfigError | Stopped | OSError) and "pip install" not in message
        ):
            raise
        typer.echo(f"error: {message}", err=True)
        raise typer.Exit(_BAD_INPUT) from None


def _times(repeats: int) -> str:
    return "1 repeat" if repeats == 1 else f"{repeats} repeats"


def _kept(folder: Path) -> str:
    """Say what a run that ended early has kept."""
    from diffevo_jax.runner import results

    done = results.finished_repeats(folder)
    kept = ", ".join(f"{_times(count)} of {name}" for name, count in done.items() if count)
    return f"Kept in {folder}: {kept or 'the config; no repeat had finished'}."


if __name__ == "__main__":
    app()
