"""`diffevo-jax plot`, `compare` and `animate`: pictures of finished runs."""

from pathlib import Path
from typing import Annotated

import typer

from diffevo_jax.runs.cli.common import Plugin, errors_for_people, plain_console


def plot(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run or a sweep.")],
    plugin: Plugin = None,
) -> None:
    """Draw the figure of a run or a sweep again, into its folder, from its files alone."""
    with errors_for_people():
        from diffevo_jax.runs.config import plugins
        from diffevo_jax.runs.report import figure
        from diffevo_jax.runs.results import folder as results

        plugins.load(plugin or ())

        if results.folder_kind(folder) == "sweep":
            from diffevo_jax.runs.report import sweep_summary

            return sweep_summary.show(folder, plain_console())
        for path in figure.draw(folder):
            typer.echo(path)


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
    with errors_for_people():
        from diffevo_jax.runs.report import compare as comparison

        shared, alone = comparison.groups(comparison.load_lines(runs, method or ()))
        console = plain_console()
        for group in shared:
            for line in comparison.tables(group):
                console.print(line)
        if alone:
            console.print(f"Left out, on other problems: {', '.join(each.label for each in alone)}")
        console.print(comparison.draw(shared, out), style="dim")


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
    plugin: Plugin = None,
) -> None:
    """Animate a run: its best policies at work, or its population on the landscape.

    Control tasks with a drawing: CartPole, Acrobot, MountainCar, MountainCarContinuous, Pendulum.
    """
    with errors_for_people():
        from diffevo_jax.runs.config import plugins

        plugins.load(plugin or ())
        from diffevo_jax.runs.report import animate as animation

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
