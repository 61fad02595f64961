"""Users with three tastes, and with one: what several interests find that one vector does not.

    python benchmarks/tastes.py        # prints two tables; needs deepmatch_ext alone

Generated events (`synthetic_interactions`), the protocol of interests.py: users split, the first four fifths of a test
user's events in, the rest the targets. All models have the same size and the same processor time. Settings are those
of `SETTINGS` that are best on the validation users with the first seed, K among them; the epoch is chosen there, too.
"""

import argparse
import functools
from dataclasses import replace

import numpy as np
import pandas as pd
from interests import Split, run, runs_of_best

from deepmatch_ext import data
from deepmatch_ext.evaluation import likeness

RECENT = {"combiner": "recency"}
SETTINGS = {  # row -> what is tried on validation
    "YoutubeDNN": [{"combiner": each} for each in ("mean", "recency", "recency+last")],
    "ComiRec-SA": [{"k_max": 4, **RECENT}, {"k_max": 4, "combiner": "mean"}, {"k_max": 1, **RECENT}],
    "ComiRec-DR": [{"k_max": 4, **RECENT}, {"k_max": 4, "combiner": "mean"}, {"k_max": 1, **RECENT}],
    "MIND": [{"k_max": 4, "routing_scale": 10.0, **RECENT}, {"k_max": 4, "combiner": "mean"}, {"k_max": 1, **RECENT}],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,2,3", help="of the models; the first one also chooses")
    parser.add_argument("--data-seed", type=int, default=1)
    parser.add_argument("--only", default="", help="what the rows' names begin with, such as MIND,ComiRec")
    parser.add_argument("--seconds", type=float, default=30, help="of processor time, for each model")
    parser.add_argument("--tastes", default="3,1")
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--items", type=int, default=600)
    parser.add_argument("--genres", type=int, default=24)
    parser.add_argument("--dim", type=int, default=8)
    args = parser.parse_args()
    seeds = [int(seed) for seed in args.seeds.split(",")]
    size = {"num_users": args.users, "num_items": args.items, "num_genres": args.genres}
    limits = {"dim": args.dim, "seconds": args.seconds}
    for tastes in map(int, args.tastes.split(",")):
        events = data.synthetic_interactions(**size, seed=args.data_seed, tastes=tastes).interactions
        split = Split(replace(events, side={}), parts=(8, 1, 2), max_len=20)
        taste = events.side["taste"][split.test.rows] if tastes > 1 else np.ones(len(split.test.rows), int)

        def trained(settings, seed, name, split=split, taste=taste):
            result = run(name, split, {"learning_rate": 5e-3, **settings}, seed, **limits)
            found = split.test.found
            shown = {
                "validation": result["validation"],
                "Recall@50": result["Recall@50"],
                "HR@50": result["HR@50"],
                "of its worst taste": min(found[taste == each].mean() for each in np.unique(taste)),
                "correlation": likeness(result["users"], result["items"]).get("interest_correlation", np.nan),
                "epochs": result["curve"][-1][0],
            }
            print(name, settings, f"seed {seed}", {key: round(float(v), 4) for key, v in shown.items()}, flush=True)
            return shown

        table = {}
        for name, candidates in SETTINGS.items():
            if not name.startswith(tuple(args.only.split(","))):
                continue
            settings, runs = runs_of_best(candidates, seeds, functools.partial(trained, name=name))
            table[name] = {
                "settings": settings,
                **runs.mean().round(3),
                "spread": runs["Recall@50"].std(ddof=0),
            }
            if "YoutubeDNN" in table:
                table[name]["over YoutubeDNN"] = table[name]["Recall@50"] / table["YoutubeDNN"]["Recall@50"]
        print(
            f"\n{tastes} taste{'s' * (tastes > 1)} a user\n{pd.DataFrame(table).T.round(3).to_string()}\n", flush=True
        )


if __name__ == "__main__":
    main()
