"""A run of any denoiser, sampler or optimiser goes on from its checkpoint, memory and all."""

import numpy as np
import pytest

from diffevo_jax.runs.config.experiment import load
from diffevo_jax.runs.results import folder as results
from diffevo_jax.runs.run import engine as run

pytestmark = pytest.mark.usefixtures("one_device")

CONFIG = """\
name: resumed
description: every algorithm that a config can name
repeats: 2
population_size: 16
problem: {name: function, function: two_peaks}
algorithm: ALGORITHM
checkpoint: {every: 2}
"""
DENOISING = (
    "{name: denoising_evolution, schedule: {num_levels: 6}, fitness_map: {name: identity}, "
    "denoiser: DENOISER, sampler: SAMPLER}"
)
ALGORITHMS = {
    "diffusion_evolution": "{num_levels: 6, latent_dim: 1}",
    "paper": "{name: paper, schedule: {num_levels: 6}, latent_dim: 1}",
    **{
        name: DENOISING.replace("DENOISER", denoiser).replace("SAMPLER", sampler)
        for name, denoiser, sampler in (
            ("broadened", "{name: broadened}", "{name: ddim}"),
            (
                "niching",
                "{name: niching, kernel: {projection: {name: active_subspace, latent_dim: 1}}}",
                "{name: ddim, freshness: 1.0}",
            ),
            ("consensus", "{name: consensus}", "{name: ddim, freshness: 1.0, centred: true}"),
            ("archive", "{name: archive, generations: 3}", "{name: ddim}"),
            ("network", "{name: network, learner: {hidden: [4], epochs: 2}}", "{name: ddim}"),
            ("student_t", "{kernel: {name: student_t, latent_dim: 1}}", "{name: ddim}"),
            ("dpm_solver", "{name: posterior_mean}", "{name: dpm_solver}"),
        )
    },
    "hades": "{name: hades, num_generations: 6, learner: {hidden: [4], epochs: 2}}",
    "cma_es": "{name: cma_es, num_generations: 6}",
    "open_es": "{name: open_es, num_generations: 6}",
    "pepg": "{name: pepg, num_generations: 6}",
    "map_elites": "{name: map_elites, num_generations: 6}",
    "track": "{name: track, num_generations: 6, rows: 4}",
    "evosax": "{name: evosax, strategy: SNES, num_generations: 6}",
    "population_based": "{name: evosax, strategy: DifferentialEvolution, num_generations: 6}",
    "peer": "{name: evosax, strategy: Open_ES, num_generations: 6, tuned: function}",
}


# A problem that remembers.
NORMALISED = (
    "problem: {name: control, environment: MountainCar-v0, max_steps: 9, policy: {hidden: []}, "
    "observations: normalised}"
)
ALGORITHMS["normalised"] = ALGORITHMS["diffusion_evolution"]
# One that says how individuals behave.
DOMAIN = "problem: {name: domain, function: arm, num_genes: 3}"
ALGORITHMS["illuminate"] = (
    "{name: illuminate, num_generations: 6, archive: {low: [-3, -3], high: [3, 3], cells: [4, 5]}}"
)

# Those of bits.
OF_BITS = ("umda", "pbil", "cga", "genetic_algorithm", "one_plus_lambda")
BITS = "problem: {name: bits, function: traps, num_genes: 10}"
ALGORITHMS |= {name: f"{{name: {name}, num_generations: 6}}" for name in OF_BITS}
ALGORITHMS["discrete_evolution"] = "{name: discrete_evolution, num_levels: 6}"

# Those that remember more than a population; the others before a release.
QUICK = (
    "archive",
    "dpm_solver",
    "cma_es",
    "genetic_algorithm",
    "map_elites",
    "population_based",
    "normalised",
)


@pytest.mark.parametrize(
    "case",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in ALGORITHMS],
)
def test_an_interrupted_run_goes_on_to_the_same_numbers(case, tmp_path):
    path = tmp_path / "resumed.yaml"
    text = CONFIG.replace("ALGORITHM", ALGORITHMS[case])
    if case == "normalised":
        text = text.replace("problem: {name: function, function: two_peaks}", NORMALISED)
    if case == "illuminate":
        text = text.replace("problem: {name: function, function: two_peaks}", DOMAIN)
    if case in (*OF_BITS, "discrete_evolution"):
        text = text.replace("problem: {name: function, function: two_peaks}", BITS)
    path.write_text(text)
    settings = load(path).config
    programs = run.build(settings)
    (name,) = programs

    def stop(method, repeats, generations, compiling):
        if generations >= 8:  # of two repeats: after four of six levels
            raise KeyboardInterrupt

    for out in ("whole", "cut"):
        results.create(tmp_path / out, settings.name)
    run.run(settings, programs, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run.run(settings, programs, tmp_path / "cut", progress=stop)
    assert list((tmp_path / "cut" / "checkpoints" / "progress").iterdir())
    seen = []
    run.run(settings, programs, tmp_path / "cut", progress=lambda *at: seen.append(at[2]))
    assert 4 <= min(done for done in seen if done) <= 8  # not from the start

    whole, cut = (results.read_arrays(tmp_path / out / f"{name}.npz") for out in ("whole", "cut"))
    assert set(whole) == set(cut)
    for key in whole:  # the same programs over the same pieces
        np.testing.assert_array_equal(cut[key], whole[key], err_msg=key)
    assert np.isfinite(whole["fitness"]).all()
