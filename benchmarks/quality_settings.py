"""What quality.py compares, as data: the sets, each recommender's settings or candidates for them, the samplers.

Where a recommender has several candidates for a set, the best on validation is taken. What a worker is given is one of
these dictionaries. In ours, ``"item_count": "train"`` stands for the counts of the training targets.
"""

FIGURES = ("HR@10", "NDCG@10", "Recall@50")
MONITOR = "NDCG@10"  # on validation: settings and epochs are chosen by it
MAX_LEN = 50  # of a history, for DeepMatch and ours
SETS = ("ml-100k", "amazon-beauty", "ml-1m")
LIMITS = {  # the most epochs, and after how many without a better validation NDCG@10 a training stops
    "ml-100k": {"epochs": 60, "patience": 6},
    "amazon-beauty": {"epochs": 60, "patience": 5},
    "ml-1m": {"epochs": 40, "patience": 3},
}
EQUAL_TIME = {"ml-100k": 40, "amazon-beauty": 80, "ml-1m": 120}  # processor seconds for the table of samplers


def ours(
    sampler=None,
    combiner="recency+last",
    user_id=False,
    batch_size=1024,
    optimizer="LazyAdam",
    learning_rate=1e-3,
    dim=64,
    **model,
):
    """Settings of ours. With no argument: the builder's defaults. ``model``: further arguments of the builder."""
    return {
        "sampler": sampler,
        "columns": {"combiner": combiner, "dim": dim, "max_len": MAX_LEN, "user_id": user_id},
        "model": model,
        "optimizer": {"name": optimizer, "learning_rate": learning_rate},
        "batch_size": batch_size,
    }


def deepmatch(sampler, num_sampled, dim, temperature, batch_size):
    return {
        "sampler": sampler,
        "num_sampled": num_sampled,
        "dim": dim,
        "user_dnn_hidden_units": [64, dim],
        "temperature": temperature,
        "max_len": MAX_LEN,
        "batch_size": batch_size,
    }


def uniform(num_sampled):
    return {"sampler": "uniform", "num_sampled": num_sampled}


def frequency(num_sampled, distortion=1.0):
    return {"sampler": "frequency", "num_sampled": num_sampled, "item_count": "train", "distortion": distortion}


def adaptive(num_sampled):
    return {"sampler": "adaptive", "num_sampled": num_sampled}


# Ours: for each set where the search starts, and what is tried beside it, one or two things at a time.

START = {
    "ml-100k": {"user_dnn_hidden_units": [64], "dnn_dropout": 0.2, "temperature": 0.1, "sampler": frequency(512)},
    "amazon-beauty": {
        "user_dnn_hidden_units": [64],
        "dnn_dropout": 0.5,
        "temperature": 0.07,
        "sampler": frequency(1024, 0.5),
        "combiner": "recency:0.5+last",
    },
    "ml-1m": {
        "user_dnn_hidden_units": [256, 128, 64],
        "dnn_dropout": 0.0,
        "temperature": 0.1,
        "sampler": frequency(512),
    },
}
CHANGES = {
    "ml-100k": [
        {},
        {"sampler": adaptive(512)},
        {"dnn_dropout": 0.4},
        {"history_dropout": 0.2},
        {"dnn_dropout": 0.4, "history_dropout": 0.2},
        {"sampler": frequency(512, 0.5)},
        {"combiner": "recency:0.5+last"},
        {"user_dnn_hidden_units": [128, 64]},
    ],
    "amazon-beauty": [
        {},
        {"history_dropout": 0.2},
        {"history_dropout": 0.2, "temperature": 0.1},
        {"history_dropout": 0.2, "sampler": adaptive(1024)},
        {"history_dropout": 0.4},
        {"history_dropout": 0.2, "dnn_dropout": 0.6},
        {"history_dropout": 0.2, "combiner": "recency+last"},
    ],
    "ml-1m": [
        {},
        {"sampler": adaptive(512)},
        {"sampler": frequency(512, 0.5)},
        {"user_dnn_hidden_units": [512, 256, 64]},
        {"dnn_dropout": 0.1},
        {"history_dropout": 0.1},
        {"combiner": "recency:0.5+last"},
        {"combiner": "mean+recency+last"},
    ],
}

# The peers.

DEEPMATCH_EXAMPLE = deepmatch("frequency", 5, dim=16, temperature=0.05, batch_size=256)
DEEPMATCH_GOOD = {
    name: deepmatch(name, 512, dim=64, temperature=0.1, batch_size=1024) for name in ("uniform", "frequency")
}
ITEM_KNN = [
    {"method": "item-kNN", "similarity": similarity, "K": k}
    for similarity in ("cosine", "tfidf", "bm25")
    for k in (50, 200, 1000)
]
ALS = [
    {"method": "ALS", "factors": factors, "regularization": regularization, "alpha": alpha, "iterations": 20}
    for factors, regularization, alpha in [
        (32, 0.05, 1.0),
        (32, 5.0, 2.0),
        (64, 0.05, 2.0),
        (64, 20.0, 10.0),
        (128, 0.05, 2.0),
        (128, 20.0, 10.0),
    ]
]


def everywhere(*candidates):
    return {name: [*candidates] for name in SETS}


RECOMMENDERS = {  # name -> worker, whether a seed changes anything, set -> candidates
    "popularity": ("quality_baselines.py", False, everywhere({"method": "popularity"})),
    "Markov": ("quality_baselines.py", False, everywhere({"method": "Markov"})),
    "item-kNN": ("quality_baselines.py", False, everywhere(*ITEM_KNN)),
    "ALS": ("quality_baselines.py", True, everywhere(*ALS)),
    "DeepMatch (its example)": ("quality_deepmatch.py", True, everywhere(DEEPMATCH_EXAMPLE)),
    "DeepMatch (good)": ("quality_deepmatch.py", True, everywhere(*DEEPMATCH_GOOD.values())),
    "ours (default)": ("quality_ours.py", True, everywhere(ours())),
    "ours (default, Keras's Adam)": ("quality_ours.py", True, everywhere(ours(optimizer="Adam"))),
    "ours (chosen)": (
        "quality_ours.py",
        True,
        {name: [ours(**{**START[name], **change}) for change in CHANGES[name]] for name in SETS},
    ),
}

# Samplers and losses at equal time; all else as START has it. log_uniform is not among them: it is for ids in the order
# of popularity, and these are not.

SAMPLERS = {
    "uniform": {"sampler": uniform(512)},
    "frequency": {"sampler": frequency(512)},
    "frequency^0.75": {"sampler": frequency(512, 0.75)},
    "frequency^0.5": {"sampler": frequency(512, 0.5)},
    "adaptive": {"sampler": adaptive(512)},
    "in-batch": {"sampler": {"sampler": "inbatch", "item_count": "train"}},
    "queue": {"sampler": {"sampler": "queue", "num_sampled": 2048, "item_count": "train"}},
    "mixed: in-batch and uniform": {
        "sampler": {"sampler": "mixed", "samplers": [{"sampler": "inbatch", "item_count": "train"}, uniform(512)]}
    },
    "hard: 64 of frequency's 512": {"sampler": frequency(512), "num_hard": 64},
    "full": {"sampler": {"sampler": "full"}},
    "frequency, bpr": {"sampler": frequency(512), "loss": "bpr"},
    "frequency, gbce": {"sampler": frequency(512), "loss": "gbce"},
    "uniform, bpr": {"sampler": uniform(512), "loss": "bpr"},
    "uniform, gbce": {"sampler": uniform(512), "loss": "gbce"},
}


def sampler_settings(name, set_name):
    return ours(**{**START[set_name], **SAMPLERS[name]})


# Seconds an epoch, in turn: ours as DeepMatch is set, its mean pooling, user id and L2 included, and DeepMatch.

EPOCH_TIME = {}
for _name, _settings in DEEPMATCH_GOOD.items():
    _sampler = uniform if _name == "uniform" else frequency
    EPOCH_TIME[f"ours, {_name}"] = (
        "quality_ours.py",
        ours(
            _sampler(_settings["num_sampled"]),
            "mean",
            user_id=True,
            batch_size=_settings["batch_size"],
            dim=_settings["dim"],
            user_dnn_hidden_units=_settings["user_dnn_hidden_units"],
            temperature=_settings["temperature"],
            l2_reg_embedding=1e-6,
            dnn_dropout=0.0,
        ),
    )
    EPOCH_TIME[f"DeepMatch, {_name}"] = ("quality_deepmatch.py", _settings)
TIMED_EPOCHS, ROUNDS = 3, 3
