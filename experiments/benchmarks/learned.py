"""What learned denoisers reach and cost: HADES, CHARLES-D, and the hybrid of kernel and network.

    python experiments/benchmarks/learned.py [--only peaks moving solve car ...] [--seeds 20]

Writes results/learned-cpu.json, the rows of the parts that were run anew; of the pages it makes
docs/howto/learned.md says what they mean. `--gif PATH` draws cart-poles that are told where to
stand. `--only torch` has a generation's training in PyTorch beside it, which is wanted for it:
`pip install torch`.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from timing import device, print_row

import diffevo_jax as de

RESULTS = Path(__file__).parent / "results" / "learned-cpu.json"
EPISODES, STEPS = 100, 200  # of a drawn policy; of an episode
REACH = 1.0  # targets lie in [-REACH, REACH]
TARGETS = jnp.linspace(-REACH, REACH, 20)
LANDSCAPES = {
    "two_peaks": de.landscapes.two_peaks,
    "rastrigin": lambda population: de.landscapes.rastrigin(4 * population),
}


def mean_and_error(values: Any) -> list[float]:
    """Mean and standard error over the first axis."""
    values = np.asarray(values, float)
    return [round(float(x), 4) for x in (values.mean(), values.std(ddof=1) / len(values) ** 0.5)]


def seeds_one_by_one(function: Any, seeds: int, first: int = 0) -> Any:
    """Run a function of a key for each seed, compiled once."""
    keys = de.batch.seed_keys(0, seeds, first=first)
    return jax.tree.map(np.asarray, jax.jit(lambda keys: jax.lax.map(function, keys))(keys))


def peaks(seeds: int) -> list[dict[str, Any]]:
    """Two peaks in the plane, N = 256: mean fitness by generation, and how even the peaks are."""
    algorithm = de.presets.hades(num_generations=8)

    def keep(info: Any) -> tuple[jax.Array, ...]:
        near = [
            jnp.mean(jnp.linalg.norm(info.population - centre, axis=1) < 1.0)
            for centre in (1.0, -1.0)
        ]
        return jnp.mean(info.fitness), near[0], near[1]

    def run(key: jax.Array) -> Any:
        key_init, key_run = jax.random.split(key)
        population = jax.random.normal(key_init, (256, 2))
        return de.evolve(key_run, algorithm, de.landscapes.two_peaks, population, keep=keep).kept

    fitness, right, left = seeds_one_by_one(run, seeds)
    return [
        {
            "generation": t + 1,
            "mean fitness": mean_and_error(fitness[:, t]),
            "difference of the peaks' shares": mean_and_error(np.abs(right - left)[:, t]),
            "seeds": seeds,
        }
        for t in range(fitness.shape[1])
    ]


PERIOD, CHANGES = 8, 3  # generations from one change to the next, and how many


def moving(seeds: int) -> list[dict[str, Any]]:
    """Two peaks of heights 1 and .5 that change places every 8 generations, N = 256.

    Mean fitness of the generation before a change, and of those after it.
    """
    heights = jnp.array([1.0, 0.5])

    def fitness_fn(generation: jax.Array, population: jax.Array) -> tuple[jax.Array, jax.Array]:
        right, left = jnp.where(generation // PERIOD % 2 == 0, heights, heights[::-1])
        near = [jnp.exp(-2 * jnp.sum((population - c) ** 2, axis=1)) for c in (1.0, -1.0)]
        return generation + 1, right * near[0] + left * near[1]

    problem = de.Problem(2, fitness_fn, init=lambda key: jnp.zeros((), int))
    generations = PERIOD * (CHANGES + 1)
    conditions = {"fitness": de.conditions.fitness(), "novelty": de.conditions.novelty()}
    algorithms = {"HADES": de.presets.hades(num_generations=generations)} | {
        f"CHARLES-D, told {name}": de.presets.charles(
            [condition], num_generations=generations
        ).algorithm
        for name, condition in conditions.items()
    }
    rows = []
    for name, algorithm in algorithms.items():

        def run(key: jax.Array, algorithm=algorithm) -> Any:
            key_init, key_run = jax.random.split(key)
            population = jax.random.normal(key_init, (256, 2))
            return de.evolve(
                key_run,
                algorithm,
                problem,
                population,
                keep=lambda info, *aux: info.fitness.mean(),
            ).kept

        fitness = seeds_one_by_one(run, seeds)[:, PERIOD - 1 : -1].reshape(seeds, CHANGES, PERIOD)
        row = {"algorithm": name, "seeds": seeds}
        for after in range(PERIOD):
            row[f"generation {after:+d}"] = mean_and_error(fitness[:, :, after].mean(axis=1))
        rows.append(row)
    return rows


class Placed(de.environments.Environment):
    """A cart-pole that also remembers where it was, on average, over its last steps."""

    def __init__(self, inner: Any, steps: int = 25):
        self.inner, self.steps, self.params = inner, steps, inner.params
        self.actions, self.observations = inner.actions, inner.observations
        self.max_steps = inner.max_steps

    @property
    def name(self) -> str:
        """The cart-pole's."""
        return self.inner.name

    def reset(self, key: jax.Array) -> tuple[jax.Array, Any]:
        """Begin where the cart is."""
        observation, state = self.inner.reset(key)
        return observation, (state, observation[0])

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> de.environments.Transition:
        """Take a step; the mean follows the place."""
        inner, place = state
        new = self.inner.step(key, inner, action)
        return new._replace(state=(new.state, place + (new.observation[0] - place) / self.steps))


def cart_pole(sizes: tuple[int, ...], episodes: int, scale: float = 1.0) -> tuple[Any, Any, Any]:
    """Task, policy, and the problem whose aux has the place."""
    task = de.tasks.make_task(Placed(de.environments.make("CartPole-v1")), max_steps=STEPS)
    policy = de.policies.scaled(de.policies.mlp(sizes), scale)
    outcomes = de.tasks.make_outcomes(task, policy, num_episodes=episodes)

    def fitness_fn(key: jax.Array, population: jax.Array) -> tuple[jax.Array, dict[str, Any]]:
        outcome = outcomes(key, population)
        return outcome.returns.mean(1), {"position": outcome.final_state[1].mean(1)}

    return task, policy, de.Problem(policy.num_genes, fitness_fn, has_key=True, has_aux=True)


def solve(seeds: int) -> list[dict[str, Any]]:
    """HADES on cart-pole, N = 128, 8 episodes of 500 steps: generations to the first return of 500.

    Of an individual's mean over its episodes, and of the population's mean.
    """
    task = de.tasks.make_task("CartPole-v1", max_steps=500)
    policy = de.policies.mlp((4, 8, 2))
    problem = de.tasks.make_problem(task, policy, num_episodes=8)
    learner = de.training.learner(hidden=(64, 64))
    algorithm = de.presets.hades(
        num_generations=12,
        learner=learner,
        elites=0.25,
        crossover=0.45,
        capacity=8 * 128,
        sharing=0.0,
    )

    def run(key: jax.Array) -> Any:
        key_init, key_run = jax.random.split(key)
        population = jax.random.normal(key_init, (128, policy.num_genes))
        kept = de.evolve(
            key_run,
            algorithm,
            problem,
            population,
            keep=lambda info, aux: (info.fitness.max(), info.fitness.mean()),
        ).kept
        return kept

    best, mean = seeds_one_by_one(run, seeds)
    first = np.where((best >= 500).any(1), np.argmax(best >= 500, 1) + 1, 99)  # 99: not yet
    return [
        {
            "first generation with an individual at 500": mean_and_error(first),
            "worst seed": int(first.max()),
            "mean return of generation 12": mean_and_error(mean[:, -1]),
            "seeds": seeds,
        }
    ]


def car(seeds: int) -> list[dict[str, Any]]:
    """Mountain car, N = 128, 8 episodes of 200 steps: generations to a return of -110.

    Of an individual's mean over its episodes, and of the population's mean. A return is less the
    steps to the top, and -110 is what the task counts as solved.
    """
    task = de.tasks.make_task("MountainCar-v0", max_steps=200)
    policy = de.policies.mlp((2, 8, 3))
    problem = de.tasks.make_problem(task, policy, num_episodes=8)
    learner = de.training.learner(hidden=(64, 64))
    algorithms = {
        "HADES": de.presets.hades(num_generations=20, learner=learner, sharing=0.0),
        "Diffusion Evolution": de.diffusion_evolution(20),
    }
    rows = []
    for name, algorithm in algorithms.items():

        def run(key: jax.Array, algorithm=algorithm) -> Any:
            key_init, key_run = jax.random.split(key)
            population = jax.random.normal(key_init, (128, policy.num_genes))
            return de.evolve(
                key_run,
                algorithm,
                problem,
                population,
                keep=lambda info, aux: (info.fitness.max(), info.fitness.mean()),
            ).kept

        best, mean = seeds_one_by_one(run, seeds)
        solved = (best >= -110).any(1)
        rows.append(
            {
                "algorithm": name,
                "solved": int(solved.sum()),
                "first generation that solves it": mean_and_error(
                    np.argmax(best[solved] >= -110, 1) + 1
                ),
                "best return": mean_and_error(best.max(1)),
                "mean return of generation 20": mean_and_error(mean[:, -1]),
                "seeds": seeds,
            }
        )
    return rows


def told() -> tuple[Any, Any, Any, Any]:
    """Configure cart-poles that can be told where to stand; last, key -> the search's end."""
    task, policy, problem = cart_pole((4, 2), 4)
    place = de.conditions.measured("position", de.conditions.uniform(-1.1 * REACH, 1.1 * REACH))
    search = de.presets.charles(
        [place],
        num_generations=30,
        learner=de.training.learner(
            hidden=(64, 64), predicts="x0", epochs=200, batch_size=256, learning_rate=3e-3
        ),
        mutation=0.03,
        sharing=0.0,
        capacity=4 * 256,
        continuous=True,
    )

    def run(key: jax.Array) -> Any:
        key_init, key_run = jax.random.split(key)
        population = jax.random.normal(key_init, (256, policy.num_genes))
        return de.evolve(key_run, search.algorithm, problem, population).state

    return task, policy, search, run


def place(seeds: int) -> list[dict[str, Any]]:
    """CHARLES-D on cart-pole's place: the error of drawn policies, 20 targets, 100 episodes each.

    Of one draw for each target, and of the best of 16 by four other episodes each.
    """
    task, policy, search, run = told()
    few = de.tasks.make_outcomes(task, policy, num_episodes=4)
    many = de.tasks.make_outcomes(task, policy, num_episodes=EPISODES)

    def errors(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        key_run, key_draw, key_choose, key_test = jax.random.split(key, 4)
        genomes = search.draw(key_draw, run(key_run), jnp.repeat(TARGETS, 16)[:, None])
        tried = few(key_choose, genomes).final_state[1].mean(1).reshape(20, 16)
        best = jnp.argmin(jnp.abs(tried - TARGETS[:, None]), axis=1)
        picked = jnp.concatenate([jnp.arange(20) * 16, jnp.arange(20) * 16 + best])
        outcome = many(key_test, genomes[picked])
        error = jnp.abs(outcome.final_state[1].mean(1).reshape(2, 20) - TARGETS)
        return error[0], error[1], outcome.returns.mean()

    one, chosen, returns = seeds_one_by_one(errors, seeds)
    return [
        {
            "error of one draw": mean_and_error(one.mean(1)),
            "of the best of 16": mean_and_error(chosen.mean(1)),
            "targets within 0.1, one draw": mean_and_error((one < 0.1).mean(1)),
            "of the best": mean_and_error((chosen < 0.1).mean(1)),
            "return, of 200": mean_and_error(returns),
            "seeds": seeds,
        }
    ]


def hybrid(seeds: int) -> list[dict[str, Any]]:
    """Kernel, network and hybrid on the landscapes of docs/variants.md, N = 512, 25 levels."""
    learner = de.training.learner(epochs=10)
    denoisers = {
        "posterior_mean": de.denoisers.posterior_mean(),
        "network": de.denoisers.network(learner),
        "hybrid": de.denoisers.hybrid(learner),
    }
    rows = []
    for problem, fitness_fn in LANDSCAPES.items():
        for eta in (1.0, 0.1):
            for name, denoiser in denoisers.items():
                algorithm = de.denoising_evolution(
                    de.schedules.cosine(25),
                    fitness_map=de.fitness.identity,
                    denoiser=denoiser,
                    sampler=de.samplers.ddim(eta),
                )

                def run(key: jax.Array, algorithm=algorithm, fitness_fn=fitness_fn) -> Any:
                    key_init, key_run = jax.random.split(key)
                    population = jax.random.normal(key_init, (512, 2))
                    kept = de.evolve(
                        key_run,
                        algorithm,
                        fitness_fn,
                        population,
                        keep=lambda info: (
                            info.fitness.mean(),
                            0.0 if info.learned is None else info.learned.share,
                        ),
                    ).kept
                    return kept[0][-1], kept[1].mean()

                fitness, share = seeds_one_by_one(run, seeds)
                rows.append(
                    {
                        "problem": problem,
                        "eta": eta,
                        "denoiser": name,
                        "mean fitness": mean_and_error(fitness),
                        "network's share": round(float(share.mean()), 3),
                        "seeds": seeds,
                    }
                )
                print_row(rows[-1])
    return rows


def generation() -> Callable[[int], Any]:
    """Make a generation with training: N = 256, 200 passes over 256 rows, MLP of 2 x 32."""
    learner = de.training.learner(epochs=200, batch_size=256)
    algorithm = de.presets.hades(num_generations=10, learner=learner, capacity=256)
    population = jax.random.normal(jax.random.key(0), (256, 2))
    state = algorithm.init(jax.random.key(1), population)
    fitness = de.landscapes.two_peaks(population)
    step = jax.jit(algorithm.step)
    return lambda number: jax.block_until_ready(step(jax.random.key(number), state, fitness))


def torch_generation() -> Callable[[int], Any]:
    """Make the work of `generation` in PyTorch: training, whole diffusions, re-noising.

    Selection, elites, crossover and jumps are left out, and so are draws that are made again.
    """
    torch: Any = import_module("torch")
    torch.set_num_threads(1)  # more are slower for so small a network
    nn = torch.nn
    rows, genes, levels, fresh, children = 256, 2, 100, 180, 205
    x0 = torch.randn(rows, genes)
    weight = torch.from_numpy(np.array(de.landscapes.two_peaks(jnp.asarray(x0.numpy()))))
    alpha = torch.from_numpy(np.array(de.schedules.cosine(levels).alpha))

    def run(number: int) -> Any:
        torch.manual_seed(number)
        layers = nn.Linear(genes + 1, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU()
        network = nn.Sequential(*layers, nn.Linear(32, genes))
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=1e-5)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200, eta_min=1e-6)
        held_out, least, best = torch.randint(rows, (rows,)), np.inf, None

        def error(places: Any) -> Any:
            level = torch.randint(levels, (rows, 1))
            p, q = alpha[level] ** 0.5, (1 - alpha[level]) ** 0.5
            clean, eps = x0[places], torch.randn(rows, genes)
            v = network(torch.cat([p * clean + q * eps, q], dim=1))
            return ((p * eps - q * clean - v) ** 2).mean()

        for _ in range(200):
            optimizer.zero_grad()
            error(torch.multinomial(weight, rows, replacement=True)).backward()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                loss = error(held_out).item()
            if loss < least:
                least = loss
                best = {name: value.clone() for name, value in network.state_dict().items()}
        network.load_state_dict(best)

        def denoise(x: Any, first: int) -> Any:
            clean = x
            for level in range(first, -1, -1):
                a, b = alpha[level], alpha[max(level - 1, 0)]
                q = ((1 - a) ** 0.5).expand(len(x), 1)
                clean = a**0.5 * x - q * network(torch.cat([x, q], dim=1))
                eps = (x - a**0.5 * clean) / q
                sigma = ((1 - b) / (1 - a) * (1 - a / b)) ** 0.5
                x = b**0.5 * clean + (1 - b - sigma**2).clamp(min=0) ** 0.5 * eps
                x = x + sigma * torch.randn_like(x)
            return clean

        with torch.no_grad():
            drawn = denoise(torch.randn(fresh, genes), levels - 1)
            again = torch.cat([drawn, x0[: children - fresh]])
            a = alpha[levels // 10]
            noise = torch.randn_like(again)
            return denoise(a**0.5 * again + (1 - a) ** 0.5 * noise, levels // 10)

    return run


def timed(functions: Sequence[Callable[[int], Any]], turns: int) -> np.ndarray:
    """Seconds of each call, one function after the other in each turn, `[turns + 1, functions]`."""
    seconds = np.zeros((turns + 1, len(functions)))
    for number, place in np.ndindex(*seconds.shape):
        begin = time.perf_counter()
        functions[place](number)
        seconds[number, place] = time.perf_counter() - begin
    return seconds


def speed(seeds: int) -> list[dict[str, Any]]:
    """Seconds of a generation with training, and of its first call, which compiles."""
    seconds = timed([generation()], seeds)[:, 0]
    row = {"first call, s": round(float(seconds[0]), 1)}
    median = round(float(np.median(seconds[1:])), 4)
    return [{**row, "a generation, s (median)": median, "turns": seeds}]


def torch(seeds: int) -> list[dict[str, Any]]:
    """Seconds of a generation with training, here and in PyTorch, in turns."""
    ours, theirs = np.median(timed([generation(), torch_generation()], seeds)[1:], axis=0)
    return [
        {
            "a generation, s (median)": round(float(ours), 4),
            "PyTorch": round(float(theirs), 4),
            "times": round(float(theirs / ours), 1),
            "PyTorch's version": import_module("torch").__version__,
            "turns": seeds,
        }
    ]


def draw_gif(path: Path) -> None:
    """Draw cart-poles of one network, told to stand at four places."""
    task, policy, search, run = told()
    state = jax.jit(run)(jax.random.key(0))
    places = jnp.array([-0.9, -0.45, 0.45, 0.9])
    genomes = search.draw(jax.random.key(5), state, jnp.repeat(places, 16)[:, None])
    outcome = de.tasks.make_outcomes(task, policy, num_episodes=4)(jax.random.key(6), genomes)
    error = jnp.abs(outcome.final_state[1].mean(1).reshape(4, 16) - places[:, None])
    chosen = jnp.arange(4) * 16 + jnp.argmin(error, axis=1)
    record = de.tasks.make_trajectories(task, policy)
    episodes = {
        f"told {float(target):+.2f}": record(jax.random.key(7), genomes, chosen[i : i + 1])
        for i, target in enumerate(places)
    }
    de.drawings.animate_episodes(path, task, episodes)


PARTS = {
    "peaks": peaks,
    "moving": moving,
    "solve": solve,
    "car": car,
    "place": place,
    "hybrid": hybrid,
    "speed": speed,
    "torch": torch,
}
DEFAULT = [part for part in PARTS if part != "torch"]


def main() -> None:
    """Run the parts that are asked for, and keep the other rows of the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=DEFAULT)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--gif", type=Path)
    arguments = parser.parse_args()
    if arguments.gif:
        draw_gif(arguments.gif)
        return
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for part in arguments.only:
        rows = PARTS[part](arguments.seeds)
        for row in rows:
            print_row(row)
        results = {**results, **device(), part: rows}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
