"""The table and the plots of quality.py's results."""

import statistics
from collections import defaultdict

import numpy as np
from quality_settings import BUDGETED, EPOCH_TIME, FIGURES, MONITOR, RECOMMENDERS, SAMPLERS, SETS

LONGEST = 100  # recall is drawn up to this N


def grouped(results, part):
    """(set, name) -> its runs that have an answer; sets and names in the order of quality_settings.py."""
    names = [*RECOMMENDERS, *BUDGETED, *SAMPLERS, *EPOCH_TIME]
    good = [run for run in results["runs"] if run["part"] == part and "error" not in run and run["name"] in names]
    found = defaultdict(list)
    for run in sorted(good, key=lambda run: (SETS.index(run["set"]), names.index(run["name"]), run["seed"])):
        found[run["set"], run["name"]].append(run)
    return found


# Settings in words.


def described(settings):
    return ", ".join(f"{name} {value}" for name, value in leaves(settings).items())


def leaves(settings):
    """What is set, in one level: name -> text."""
    found = {}
    for name, value in settings.items():
        if isinstance(value, dict) and head(value) is None:
            found |= leaves(value)
        elif value is not None and value is not False:
            found[name] = text(value)
    return found


def head(value):
    return value.get("sampler") or value.get("name")


def text(value):
    if isinstance(value, dict):
        rest = [f"{k} {text(v)}" for k, v in value.items() if k not in ("sampler", "name", "item_count")]
        return f"{head(value)}({', '.join(rest)})" if rest else head(value)
    if isinstance(value, list) and not value:
        return "none"
    if isinstance(value, list):
        return "-".join(map(str, value)) if isinstance(value[0], int) else " + ".join(map(text, value))
    return str(value)


# The table.


def table(results):
    good = [run for run in results["runs"] if "error" not in run]
    lines = [f"- machine: {results['machine']}"]
    versions = {", ".join(f"{name} {version}" for name, version in run["versions"].items()): None for run in good}
    lines += [f"- versions: {each}" for each in versions]
    loads = [run["load before"] for run in good]
    lines += [f"- load of the machine before a run: {min(loads)} to {max(loads)}"] if loads else []
    lines += [
        *test_table(results),
        *budget_table(results),
        *samplers_table(results),
        *epoch_time_table(results),
        *choose_table(results),
    ]
    for run in results["runs"]:
        if "error" in run:
            settings = f", {described(run['settings'])}" if run["part"] == "choose" else ""
            failed = f"{run['part']}, {run['set']}, {run['name']}, seed {run['seed']}{settings}"
            lines += ["", f"Failed: {failed}: {run['error']}"]
    return "\n".join(lines) + "\n"


def section(title, columns, rows):
    if not rows:
        return []
    lines = ["", f"## {title}", "", f"| {' | '.join(columns)} |", "|:--|:--|" + "--:|" * (len(columns) - 2)]
    return [*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)]


def mean(runs, value, digits=0):
    """Mean and standard deviation of the runs."""
    values = [value(run) for run in runs]
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def quality_columns(runs):
    return [
        *(mean(runs, lambda run, name=name: run["test"][name], 4) for name in FIGURES),
        mean(runs, lambda run: run["validation"][MONITOR], 4),
        " ".join(epochs(run) for run in runs),
    ]


def epochs(run):
    """Which of how many, where there are any."""
    return f"{run['best_epoch']}/{run['epochs']}" if has_epochs(run["name"]) else ""


def epoch_seconds(runs):
    middle = statistics.median(run["seconds_per_epoch"] for run in runs)
    return f"{middle:.2f}" if has_epochs(runs[0]["name"]) else ""


def has_epochs(name):
    return name not in RECOMMENDERS or RECOMMENDERS[name][0] != "quality_baselines.py"


def test_table(results):
    return trained_table("Test", grouped(results, "test"))


def budget_table(results):
    runs = grouped(results, "budget")
    budgets = ", ".join(dict.fromkeys(f"{s} {of[0]['limits']['seconds']} s" for (s, _), of in runs.items()))
    return trained_table(f"At an equal budget of processor time: {budgets}", runs)


def trained_table(title, found):
    rows = [
        [
            *names,
            *quality_columns(runs),
            mean(runs, lambda run: run["seconds"], 1),
            epoch_seconds(runs),
            max(run["peak_rss_mb"] for run in runs),
            described(runs[0]["settings"]),
        ]
        for names, runs in found.items()
    ]
    columns = ["set", "", *FIGURES, f"validation {MONITOR}", "best epoch/epochs", "CPU s", "CPU s an epoch"]
    return section(title, [*columns, "peak MB", "settings"], rows)


def samplers_table(results):
    rows = [
        [
            *names,
            *quality_columns(runs),
            epoch_seconds(runs),
            runs[0]["limits"]["seconds"],
        ]
        for names, runs in grouped(results, "samplers").items()
    ]
    rows.sort(key=lambda row: (SETS.index(row[0]), -float(row[2 + len(FIGURES)].split()[0])))
    columns = ["set", "", *FIGURES, f"validation {MONITOR}", "best epoch/epochs", "CPU s an epoch", "CPU s"]
    lines = section("Samplers and losses at equal processor time, by validation", columns, rows)
    bases = {
        names[0]: ", ".join(f"{k} {v}" for k, v in leaves(runs[0]["settings"]).items() if k not in ("sampler", "loss"))
        for names, runs in grouped(results, "samplers").items()
    }
    return [*lines, *(line for name, base in bases.items() for line in ("", f"All else on {name}: {base}."))]


def epoch_time_table(results):
    found, rows = grouped(results, "epoch-time"), []
    for (set_name, name), runs in found.items():
        times = [run["seconds_per_epoch"] for run in runs]
        ours = {run["seed"]: run for run in found.get((set_name, name.replace("DeepMatch", "ours")), [])}
        ratios = [
            run["seconds_per_epoch"] / ours[run["seed"]]["seconds_per_epoch"] for run in runs if run["seed"] in ours
        ]
        rows.append(
            [
                *(set_name, name),
                *(f"{f(times):.2f}" for f in (statistics.median, min, max)),
                f"{statistics.median(run['seconds_first_epoch'] for run in runs):.2f}",
                max(run["peak_rss_mb"] for run in runs),
                f"{statistics.median(ratios):.2f}" if ratios else "",
            ]
        )
    columns = ["set", "", "s an epoch, median", "min", "max", "the first epoch", "peak MB", "over ours of its round"]
    return section("An epoch's time, in turn, at the same settings", columns, rows)


def choose_table(results):
    lines = []
    for (set_name, name), runs in grouped(results, "choose").items():
        settings = [leaves(run["settings"]) for run in runs]
        common = {k: v for k, v in settings[0].items() if all(each.get(k) == v for each in settings)}
        rows = [
            [
                ", ".join(f"{k} {v}" for k, v in each.items() if k not in common),
                "",
                *(f"{run['validation'][figure]:.4f}" for figure in FIGURES),
                epochs(run),
                f"{run['seconds']:.1f}",
            ]
            for run, each in zip(runs, settings, strict=True)
        ]
        rows.sort(key=lambda row: -float(row[3]))
        columns = [
            "settings",
            "",
            *(f"validation {figure}" for figure in FIGURES),
            "best epoch/epochs",
            "CPU s",
        ]
        lines += section(f"Tried: {name}, {set_name}", columns, rows)
        lines += ["", f"The same for all: {', '.join(f'{k} {v}' for k, v in common.items())}."]
    return lines


# The plots.


def plots(results, out):
    import matplotlib

    matplotlib.use("Agg")
    if runs := grouped(results, "test"):
        draw(runs, out, "plot.png")
    if runs := grouped(results, "budget"):
        draw(runs, out, "budget.png")
    if runs := grouped(results, "samplers"):
        draw(runs, out, "samplers.png")


def draw(found, out, name):
    """A row for each set: recall of the test item against N, and validation against processor seconds of training."""
    from matplotlib import pyplot

    sets, names = list(dict.fromkeys(s for s, _ in found)), list(dict.fromkeys(n for _, n in found))
    figure, axes = pyplot.subplots(len(sets), 2, figsize=(13, 4.5 * len(sets)), squeeze=False, layout="constrained")
    n = np.arange(1, LONGEST + 1)
    for (set_name, recommender), runs in found.items():
        recall, quality = axes[sets.index(set_name)]
        color = pyplot.colormaps["tab10" if len(names) <= 10 else "tab20"](names.index(recommender))
        of_runs = []
        for run in runs:
            with np.load(out / run["ranks"]) as ranks:
                of_runs.append((ranks["test"] < n[:, None]).mean(axis=1))
        recall.plot(n, np.mean(of_runs, axis=0), color=color, label=recommender)
        recall.fill_between(n, np.min(of_runs, axis=0), np.max(of_runs, axis=0), color=color, alpha=0.2)
        for run in runs:
            ranked = [(epoch["seconds"], epoch[MONITOR]) for epoch in run["curve"] if MONITOR in epoch]
            seconds, values = zip(*ranked, strict=True)
            label = recommender if run is runs[0] else None
            if has_epochs(recommender):
                quality.plot(seconds, values, ".-", markersize=3, linewidth=1, color=color, label=label)
            else:
                quality.axhline(values[0], linestyle="--", linewidth=1, color=color, label=label)
        recall.set(title=set_name, xlabel="N", ylabel="recall of the test item at N, mean of the seeds")
        quality.set(
            title=set_name, xlabel="processor seconds of training", ylabel=f"validation {MONITOR}", xscale="log"
        )
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    axes[0, 1].legend(loc="upper left", bbox_to_anchor=(1.02, 1))
    figure.savefig(out / name, dpi=120)
    pyplot.close(figure)
