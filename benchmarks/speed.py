"""Time of a training step against the size of the catalogue: ours and its peers, in turn, on the same input.

    python benchmarks/speed.py            # writes speed_results/: results.json, table.md, plot.png
    python benchmarks/speed.py --quick    # a try
    python benchmarks/speed.py --models 'MIND;ComiRec {"interest_extractor": "dr"}'    # other models than YoutubeDNN

docs/performance.md says what is measured. Needs NumPy and matplotlib; the rest goes into virtual environments
that this makes. The worker scripts take the input, the sizes and the form of their answer from here.
"""

import argparse
import configparser
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np

MAX_LEN, USERS, USER_DIM, NUM_SAMPLED, DIM, HIDDEN = 50, 100_000, 16, 100, 64, 128
HERE = Path(__file__).resolve().parent
ENVIRONMENTS = {
    "ours": ["tensorflow==2.21.0", "tf-keras==2.21.0"],  # and what setup.cfg asks for
    "deepmatch": ["tensorflow==2.21.0", "tf-keras==2.21.0", "deepctr==0.9.4", "deepmatch==0.3.2"],
    "torch": ["torch==2.13.0", "numpy"],
    "fbgemm": ["torch==2.13.0", "fbgemm-gpu-cpu==1.8.0", "numpy"],
}
FEWER = "ours, 10^4 of the items"  # as many different rows a batch as at V = 10^4, spread over the table
CONFIGURATIONS = {  # environment, script, further arguments, environment variables
    "ours": ("ours", "ours.py", [], {}),
    "ours, 16 steps an execution": ("ours", "ours.py", ["--steps-per-execution", "16"], {}),
    "ours, 16 steps an execution, 1 thread": (
        *("ours", "ours.py"),
        ["--steps-per-execution", "16"],
        {"TF_NUM_INTRAOP_THREADS": "1"},
    ),
    "ours, RowwiseAdagrad": ("ours", "ours.py", ["--optimizer", "RowwiseAdagrad"], {}),
    "ours, RowwiseAdagrad, 16 steps an execution": (
        *("ours", "ours.py"),
        ["--optimizer", "RowwiseAdagrad", "--steps-per-execution", "16"],
        {},
    ),
    "ours, RowwiseAdagrad, 16 steps an execution, 1 thread": (
        *("ours", "ours.py"),
        ["--optimizer", "RowwiseAdagrad", "--steps-per-execution", "16"],
        {"TF_NUM_INTRAOP_THREADS": "1"},
    ),
    FEWER: ("ours", "ours.py", ["--items", "1e4"], {}),
    "ours on tf-keras": ("ours", "ours.py", [], {"TF_USE_LEGACY_KERAS": "1"}),
    "deepmatch": ("deepmatch", "peer_deepmatch.py", [], {}),
    "torch, 1 thread": ("torch", "peer_torch.py", [], {"TORCH_THREADS": "1"}),
    "torch, 2 threads": ("torch", "peer_torch.py", [], {"TORCH_THREADS": "2"}),
    "fbgemm, 1 thread": ("fbgemm", "peer_torch.py", ["--tables", "fbgemm"], {"TORCH_THREADS": "1"}),
    "fbgemm, 2 threads": ("fbgemm", "peer_torch.py", ["--tables", "fbgemm"], {"TORCH_THREADS": "2"}),
}
OF_THREADS = ("torch", "fbgemm")  # run with 1 and with 2; the faster counts


# What the workers share.


def synthetic_input(vocabulary, batch, steps):
    """Users, histories (Zipf-like ids, most recent first, 0 is padding), their lengths, and target items."""
    rng, n = np.random.default_rng(0), batch * steps
    x = {
        "user_id": rng.integers(1, USERS, n).astype("int32"),
        "hist_item": (rng.zipf(1.2, (n, MAX_LEN)) % (vocabulary - 1) + 1).astype("int32"),
        "hist_len": rng.integers(1, MAX_LEN + 1, n).astype("int32"),
        "item": (rng.zipf(1.2, n) % (vocabulary - 1) + 1).astype("int32"),
    }
    x["hist_item"][np.arange(MAX_LEN) >= x["hist_len"][:, None]] = 0
    return x


def arguments(argv):
    return argparse.Namespace(
        **dict(zip(("vocabulary", "batch", "dim", "steps"), (int(float(a)) for a in argv), strict=True))
    )


def print_result(name, args, x, seconds, versions, **extra):
    result = {
        "peer": name,
        **{key: getattr(args, key) for key in ("vocabulary", "batch", "dim", "steps")},
        "ms_per_step": round(seconds / args.steps * 1e3, 3),
        "examples_per_s": round(args.batch * args.steps / seconds),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "versions": {"python": platform.python_version(), "numpy": np.__version__, **versions},
        "input_crc32": zlib.crc32(b"".join(values.tobytes() for values in x.values())),
    }
    print(json.dumps({**result, **extra}), flush=True)


# The floor: what the step must move and compute, at this machine's rates.


def measured_rates():
    """GB/s (read and written) of a large copy and of gathering random rows, GFLOP/s of a large float32 matmul."""
    table, target = np.ones((2**20, DIM), "float32"), np.zeros((2**20, DIM), "float32")  # 256 MiB each
    rows, a = np.random.default_rng(0).permutation(len(table)), np.ones((2048, 2048), "float32")
    threads = os.cpu_count()
    parts = [slice(k * len(table) // threads, (k + 1) * len(table) // threads) for k in range(threads)]
    with ThreadPoolExecutor(threads) as pool:

        def fastest(call, works):
            times = []
            for _ in range(7):
                start = time.perf_counter()
                list(pool.map(call, works))
                times.append(time.perf_counter() - start)
            return min(times)

        copying = fastest(lambda part: np.copyto(target[part], table[part]), parts)
        gathering = fastest(lambda part: np.take(table, rows[part], 0, target[part], "clip"), parts)
        multiplying = fastest(lambda _: a @ a, [None])  # takes all cores by itself
    return {
        "copy, GB/s": round(2 * table.nbytes / copying / 1e9, 1),
        "gather of random rows of 256 bytes, GB/s": round(2 * table.nbytes / gathering / 1e9, 1),
        "matmul, GFLOP/s": round(2 * 2048**3 / multiplying / 1e9),
    }


@cache
def step_work(vocabulary, batch, steps=8):
    """Rows of the items' table that a step looks up, bytes moved, flops; docs/performance.md has the formula."""
    x = synthetic_input(vocabulary, batch, steps)
    items = np.concatenate([x["hist_item"], x["item"][:, None]], axis=1).reshape(steps, -1)
    rows = np.mean([np.count_nonzero(np.unique(of_batch)) for of_batch in items]) + NUM_SAMPLED
    users = np.mean([len(np.unique(of_batch)) for of_batch in x["user_id"].reshape(steps, -1)])
    moved = 7 * 4 * (rows * DIM + users * USER_DIM)
    moved += 3 * 4 * batch * (DIM + USER_DIM + HIDDEN + DIM + NUM_SAMPLED)
    flops = 3 * 2 * batch * ((DIM + USER_DIM) * HIDDEN + HIDDEN * DIM + NUM_SAMPLED * DIM)
    flops += 2 * 2 * x["hist_len"].sum() / steps * DIM
    return rows, moved, flops


# The runs.


def library_requirements():
    setup = configparser.ConfigParser()
    setup.read(HERE.parent / "setup.cfg")
    return setup["options"]["install_requires"].split()


def make_environment(folder, name, requirements):
    """Makes a virtual environment, or leaves it where its requirements are the same. A failure shows in its runs."""
    stamp = folder / name / "requirements.txt"
    if not stamp.exists() or stamp.read_text().split() != requirements:
        print(f"making {folder / name}: {' '.join(requirements)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder / name], check=True)
        pip = [folder / name / "bin" / "python", "-m", "pip", "install", "-qq", *requirements]
        if subprocess.run(pip, check=False).returncode == 0:
            stamp.write_text("\n".join(requirements))


def answer_of(command, variables, time_limit):
    """What a worker prints as its last line, or why there is none, as ``error``."""
    variables = {**os.environ, "PYTHONPATH": str(HERE.parent), "CUDA_VISIBLE_DEVICES": "-1", **variables}
    try:
        done = subprocess.run(
            list(map(str, command)), env=variables, capture_output=True, text=True, timeout=time_limit
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {time_limit:.0f} s"}
    except OSError as error:
        return {"error": str(error)}
    answers = [line for line in done.stdout.splitlines() if line.startswith('{"')]
    if done.returncode or not answers:
        return {"error": f"exit status {done.returncode}: {' '.join(done.stderr.splitlines()[-1:])}"}
    return json.loads(answers[-1])


def run(args, name, vocabulary, batch, *further, model=None):
    """One worker's answer, or why there is none, as ``error``."""
    further = (*further, *(("--model", model) if model else ()))
    environment, script, options, variables = CONFIGURATIONS[name]
    steps = max(16, (args.steps if batch < 1024 else args.steps // 5) // 16 * 16)  # of 16, for 16 steps an execution
    if name == "deepmatch":
        steps = min(steps, 64 if vocabulary <= 10**5 else 12)
    python = args.envs / environment / "bin" / "python"
    command = [python, HERE / script, vocabulary, batch, DIM, steps, *options, *further]
    result = {"configuration": name, "vocabulary": vocabulary, "batch": batch}
    result |= answer_of(command, variables, args.time_limit)
    print(
        f"{model or ''} {name}, V = {vocabulary:,}, batch {batch}: {result.get('error') or result['ms_per_step']}",
        flush=True,
    )
    return result


def is_run(name, vocabulary, batch):
    if vocabulary > 10**6:
        return name in ("ours", "ours, 16 steps an execution")
    if name == FEWER:
        return vocabulary > 10**4
    return name != "deepmatch" or vocabulary < 10**6 or batch == 256  # most of a second a step, and more


# The report.


def summary(results):
    """For each size its floor in ms and rows (name, runs, ratio to ours); the faster of 1 and 2 threads."""
    grouped = defaultdict(lambda: defaultdict(dict))
    for r in results["runs"]:
        if "error" not in r:
            grouped[r["batch"], r["vocabulary"]][r["configuration"]][r["round"]] = r
    for (batch, vocabulary), by_name in sorted(grouped.items()):
        _, moved, flops = step_work(vocabulary, batch)
        floor = (moved / results["rates"]["copy, GB/s"] + flops / results["rates"]["matmul, GFLOP/s"]) / 1e6
        slower = set()
        for peer in OF_THREADS:
            runs = [name for name in by_name if name.startswith(peer)]
            slower.update(sorted(runs, key=lambda name: median(by_name[name].values()))[1:])
        rows = []
        for name in [name for name in CONFIGURATIONS if name in by_name and name not in slower]:
            runs = by_name[name]
            ratios = [runs[k]["ms_per_step"] / r["ms_per_step"] for k, r in by_name["ours"].items() if k in runs]
            rows.append((name, list(runs.values()), f"{statistics.median(ratios):.2f}" if ratios else ""))
        yield vocabulary, batch, floor, rows


def median(runs, key="ms_per_step"):
    return statistics.median(r[key] for r in runs)


def table(results):
    good = [r for r in results["runs"] if "error" not in r]
    facts = {name: results[name] for name in ("machine", "rounds", "load before")} | results["rates"]
    facts |= {r["configuration"]: ", ".join(f"{k} {v}" for k, v in r["versions"].items()) for r in good}
    inputs = {(r["vocabulary"], r["batch"], r["steps"], r["input_crc32"]) for r in good if r["configuration"] != FEWER}
    facts["same input for all"] = "yes" if len(inputs) == len({key[:3] for key in inputs}) else "NO"
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", "| V | batch | | ms a step, median | min | max | examples/s | peak MB | over ours | over the floor |"]
    lines += ["|--:|--:|:--|" + "--:|" * 7]
    for vocabulary, batch, floor, rows in summary(results):
        looked_up, moved, flops = step_work(vocabulary, batch)
        work = f"{looked_up:,.0f} rows, {moved / 1e6:.1f} MB, {flops / 1e6:,.0f} MFLOP"
        lines.append(f"| {vocabulary:,} | {batch} | the floor: {work} | {floor:.3f} | | | | | | |")
        for name, runs, ratio in rows:
            times = [r["ms_per_step"] for r in runs]
            lines.append(
                f"| {vocabulary:,} | {batch} | {name} | {median(runs):.2f} | {min(times):.2f} | {max(times):.2f} "
                f"| {median(runs, 'examples_per_s'):,.0f} | {median(runs, 'peak_rss_mb'):,.0f} "
                f"| {ratio} | {'' if name == FEWER else f'{median(runs) / floor:.1f}'} |"
            )
    profile = results.get("profile", {})
    if "profile" in profile:
        lines += ["", f"Our step, V = {profile['vocabulary']:,}, batch {profile['batch']}:", ""]
        lines += ["| ms a step | times | operation |", "|--:|--:|:--|"]
        lines += [f"| {op['ms']:.3f} | {op['times']} | {op['operation']} |" for op in profile["profile"]]
    for r in [*results["runs"], profile]:
        if "error" in r:
            lines += ["", f"Failed: {r['configuration']}, V = {r['vocabulary']:,}, batch {r['batch']}: {r['error']}"]
    return "\n".join(lines) + "\n"


def plot(results, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = defaultdict(list)
    for vocabulary, batch, floor, rows in summary(results):
        lines[batch, "the floor"].append((vocabulary, floor, floor, floor))
        for name, runs, _ in rows:
            times = [r["ms_per_step"] for r in runs]
            name = next((peer for peer in OF_THREADS if name.startswith(peer)), name)
            lines[batch, name].append((vocabulary, median(runs), min(times), max(times)))
    batches = sorted({batch for batch, _ in lines})
    figure, axes = pyplot.subplots(1, len(batches), figsize=(6 * len(batches), 4.5), squeeze=False, sharey=True)
    for (batch, name), points in lines.items():
        v, middle, low, high = np.array(points).T
        axis, style = axes[0, batches.index(batch)], "k:" if name == "the floor" else "o-"
        axis.errorbar(v, middle, [middle - low, high - middle], fmt=style, capsize=3, markersize=4, label=name)
        axis.set(xscale="log", yscale="log", title=f"batch {batch}", xlabel="items in the catalogue, V")
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("time of a step, ms")
    axes[0, -1].legend(loc="upper left", bbox_to_anchor=(1.02, 1))
    figure.savefig(path, dpi=150, bbox_inches="tight")


def machine():
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores,{''.join(models[:1]).partition(':')[2]}, {memory:.0f} GiB, {platform.platform()}"


def numbers(text):
    return [int(float(each)) for each in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=Path, default=Path(tempfile.gettempdir(), "deepmatch_ext_benchmarks"))
    parser.add_argument("--out", type=Path, default=Path("speed_results"))
    parser.add_argument("--only", default="", help="what the configurations' names begin with, such as ours,torch")
    parser.add_argument("--steps", type=int, default=320, help="at batch 256; a fifth at 4096; fewer for deepmatch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--time-limit", type=float, default=600, help="of one run, in seconds")
    parser.add_argument("--vocabularies", type=numbers, default=[10**4, 10**5, 10**6, 10**7], help="such as 1e4,1e6")
    parser.add_argument("--batches", type=numbers, default=[256, 4096], help="such as 256")
    models = "builders and further arguments of theirs as JSON, with a semicolon between them, in place of YoutubeDNN"
    parser.add_argument("--models", type=lambda text: text.split(";"), help=models)
    parser.add_argument("--quick", action="store_true", help="one round of 24 steps, V = 10^4 and 10^5, batch 256")
    args = parser.parse_args()
    if args.quick:
        args.vocabularies, args.batches, args.steps, args.rounds = [10**4, 10**5], [256], 24, 1
    names = [name for name in CONFIGURATIONS if name.startswith(tuple(args.only.split(",")))]
    if not names:
        parser.error(f"--only must hold beginnings of {list(CONFIGURATIONS)}, got {args.only!r}")
    args.envs = args.envs.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / ".gitignore").write_text("*\n")
    for environment in {CONFIGURATIONS[name][0] for name in names}:
        library = library_requirements() if environment == "ours" else []
        make_environment(args.envs, environment, ENVIRONMENTS[environment] + library)
    results = {"machine": machine(), "rounds": args.rounds, "load before": round(os.getloadavg()[0], 2)}
    results |= {"rates": measured_rates(), "runs": []}
    if args.models:
        compare_models(args, [name for name in names if name in ("ours", "ours on tf-keras", "deepmatch")], results)
        return
    sizes = [(vocabulary, batch) for vocabulary in args.vocabularies for batch in args.batches]
    for number in range(args.rounds):
        for name, size in [(name, size) for size in sizes for name in names if is_run(name, *size)]:
            results["runs"].append({"round": number, **run(args, name, *size)})
        write(results, args.out)
    if "ours" in names:
        results["profile"] = run(args, "ours", min(10**6, max(args.vocabularies)), 256, "--profile")
        write(results, args.out)
    print((args.out / "table.md").read_text())


def compare_models(args, names, results):
    """Each model's step at each size, ours and DeepMatch's in turn; median times and peak memory go to models.md."""
    places = [*itertools.product(args.models, args.vocabularies, names)]
    found = defaultdict(list)
    for number in range(args.rounds):
        for model, vocabulary, name in places:
            answer = run(args, name, vocabulary, args.batches[0], model=model)
            results["runs"].append({"round": number, **answer})
            if "error" not in answer:
                found[model, name, vocabulary].append((answer["ms_per_step"], answer["peak_rss_mb"]))
        (args.out / "models.json").write_text(json.dumps(results, indent=1))
    columns = [(vocabulary, name) for name in names for vocabulary in args.vocabularies]
    lines = [
        "| ms a step, peak MB | " + " | ".join(f"{name}, V = {vocabulary:,}" for vocabulary, name in columns) + " |"
    ]
    lines += ["|:--|" + "--:|" * len(columns)]
    for model in args.models:
        answers = [found[model, name, vocabulary] for vocabulary, name in columns]
        medians = [[statistics.median(each) for each in zip(*answer, strict=True)] for answer in answers]
        cells = [f"{median[0]:.1f}, {median[1]:,.0f}" if median else "-" for median in medians]
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    (args.out / "models.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def write(results, out):
    (out / "results.json").write_text(json.dumps(results, indent=1))
    (out / "table.md").write_text(table(results))
    if any("error" not in r for r in results["runs"]):
        plot(results, out / "plot.png")


if __name__ == "__main__":
    main()
