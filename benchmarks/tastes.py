"""Users with three tastes, and with one: what several interests find that one vector does not.

    python benchmarks/tastes.py        # prints two tables; needs deepmatch_ext alone

Generated events (`synthetic_interactions`), the protocol of interests.py: users split, the first four fifths of a test
user's events in, the rest the targets. All models have the same size and the same processor time, in which the epoch
is chosen on validation users. YoutubeDNN is given with two combiners.
"""

import argparse
from dataclasses import replace

import numpy as np
import pandas as pd
from interests import Split, run

from deepmatch_ext import data
from deepmatch_ext.evaluation import likeness

ROWS = {  # row -> model, settings
    "YoutubeDNN, mean": ("YoutubeDNN", {"combiner": "mean"}),
    "YoutubeDNN, recency+last": ("YoutubeDNN", {}),
    "ComiRec-SA": ("ComiRec-SA", {}),
    "ComiRec-DR": ("ComiRec-DR", {}),
    "MIND": ("MIND", {}),
    "ComiRec-SA, recency+last beside": ("ComiRec-SA", {"beside": "recency+last"}),
    "MIND, recency+last beside": ("MIND", {"beside": "recency+last"}),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--only", default="", help="what the rows' names end with, such as beside")
    parser.add_argument("--seconds", type=float, default=20, help="of processor time, for each model")
    parser.add_argument("--tastes", default="3,1")
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--items", type=int, default=600)
    parser.add_argument("--genres", type=int, default=12)
    parser.add_argument("--dim", type=int, default=8)
    parser.add_argument("--k", type=int, default=4)
    args = parser.parse_args()
    for tastes in map(int, args.tastes.split(",")):
        events = data.synthetic_interactions(args.users, args.items, 40, args.genres, tastes=tastes).interactions
        split = Split(replace(events, side={}), parts=(8, 1, 2), max_len=20)
        taste = events.side["taste"][split.test.rows] if tastes > 1 else np.ones(len(split.test.rows), int)
        table = {}
        for name, (model, settings) in ROWS.items():
            if not name.endswith(args.only):
                continue
            settings = {"learning_rate": 5e-3, **settings, **({} if model == "YoutubeDNN" else {"k_max": args.k})}
            runs = []
            for seed in map(int, args.seeds.split(",")):
                result = run(model, split, settings, seed, dim=args.dim, seconds=args.seconds)
                print(tastes, name, seed, result["curve"][:: max(1, len(result["curve"]) // 6)], flush=True)
                of_test = likeness(result["users"], result["items"])
                found = split.test.found
                runs.append(
                    {
                        "Recall@50": result["Recall@50"],
                        "HR@50": result["HR@50"],
                        "of its worst taste": min(found[taste == each].mean() for each in np.unique(taste)),
                        "interest correlation": of_test.get("interest_correlation", np.nan),
                        "epochs": result["curve"][-1][0],
                    }
                )
            table[name] = {key: f"{np.mean([r[key] for r in runs]):.3f}" for key in runs[0]}
            one = [float(row["Recall@50"]) for key, row in table.items() if key.startswith("YoutubeDNN")]
            table[name]["over YoutubeDNN"] = f"{float(table[name]['Recall@50']) / max(one, default=np.nan):.2f}"
        print(f"\n{tastes} taste{'s' * (tastes > 1)} a user\n{pd.DataFrame(table).T.to_string()}\n", flush=True)


if __name__ == "__main__":
    main()
