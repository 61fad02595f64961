"""What quality.py compares, as data: the sets, each recommender's settings or candidates for them, the samplers.

Where a recommender has several candidates for a set, the best on validation is taken. What a worker is given is one of
these dictionaries. In ours, ``"item_count": "train"`` stands for the counts of the training targets.
"""

FIGURES = ("HR@10", "NDCG@10", "Recall@50", "P@20", "MRR@20")
MONITOR = "NDCG@10"  # on validation: settings and epochs are chosen by it
MAX_LEN = 50  # of a history, for DeepMatch and ours
OF_USERS = ("ml-100k", "amazon-beauty", "amazon-toys", "ml-1m")
SETS = (*OF_USERS, "diginetica")
LIMITS = {  # the most epochs, and after how many without a better validation NDCG@10 a training stops
    "ml-100k": {"epochs": 60, "patience": 6},
    "amazon-beauty": {"epochs": 60, "patience": 5},
    "amazon-toys": {"epochs": 60, "patience": 5},
    "ml-1m": {"epochs": 40, "patience": 3},
    "diginetica": {"epochs": 20, "patience": 3},
}
# Processor seconds: of models beside one another, and for the table of samplers.
BUDGET = {"ml-100k": 60, "amazon-beauty": 300, "amazon-toys": 300, "ml-1m": 400, "diginetica": 600}
EQUAL_TIME = {"ml-100k": 40, "amazon-beauty": 80, "ml-1m": 120}


def ours(
    sampler=None,
    combiner="recency+last",
    user_id=False,
    batch_size=1024,
    optimizer="LazyAdam",
    learning_rate=1e-3,
    dim=64,
    builder="YoutubeDNN",
    rows="windows",
    max_len=MAX_LEN,
    falls=False,
    **model,
):
    """Settings of ours. With no argument: the builder's defaults.

    Args:
        rows: "windows", each event once as a row's item; or "sequences", each once in some position of a row.
        falls: Whether the learning rate falls over the seconds that there are.
        model: Further arguments of the builder.
    """
    return {
        "builder": builder,
        "rows": rows,
        "falls": falls,
        "sampler": sampler,
        "columns": {"combiner": combiner, "dim": dim, "max_len": max_len, "user_id": user_id},
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
        "rows": "windows",
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
START["amazon-toys"] = START["amazon-beauty"]
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

CHANGES["amazon-toys"] = CHANGES["amazon-beauty"]

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


def everywhere(*candidates, sets=OF_USERS):
    return {name: [*candidates] for name in sets}


RECOMMENDERS = {  # name -> worker, whether a seed changes anything, set -> candidates
    "popularity": ("quality_baselines.py", False, everywhere({"method": "popularity"}, sets=SETS)),
    "Markov": ("quality_baselines.py", False, everywhere({"method": "Markov"}, sets=SETS)),
    "item-kNN": ("quality_baselines.py", False, everywhere(*ITEM_KNN)),
    "ALS": ("quality_baselines.py", True, everywhere(*ALS)),
    "DeepMatch (its example)": ("quality_deepmatch.py", True, everywhere(DEEPMATCH_EXAMPLE)),
    "DeepMatch (good)": ("quality_deepmatch.py", True, everywhere(*DEEPMATCH_GOOD.values())),
    "ours (default)": ("quality_ours.py", True, everywhere(ours())),
    "ours (default, Keras's Adam)": ("quality_ours.py", True, everywhere(ours(optimizer="Adam"))),
    "ours (chosen)": (
        "quality_ours.py",
        True,
        {name: [ours(**{**START[name], **change}) for change in CHANGES[name]] for name in OF_USERS},
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

# Models that learn from sequences, ours and peers', within BUDGET's seconds, YoutubeDNN beside them. The peers' sizes
# are those published for these sets (SASRec and eSASRec: blondered/transformer_benchmark; HSTU: RecTools' tutorial, but
# for the bias of time, since the time of a request is not known here). Fewer negatives, and histories no longer than
# most users have, are what a short budget on processors asks for.


def sequence_dnn(max_len, batch_size, learning_rate, **model):
    columns = {"builder": "SequenceDNN", "rows": "sequences", "max_len": max_len}
    return ours(batch_size=batch_size, learning_rate=learning_rate, **columns, **model)


def rectools(model, max_len, negatives, blocks, dropout, steps, **arguments):
    """``steps``: after so many batches of 128 users a part of training counts as an epoch."""
    loss = {"loss": "sampled_softmax", "n_negatives": negatives} if negatives else {"loss": "softmax"}
    size = {"n_factors": 64, "n_blocks": blocks, "n_heads": 1, "dropout_rate": dropout, "batch_size": 128, "lr": 1e-3}
    return {
        "model": model,
        "rows": "events",
        "max_len": max_len,
        "steps": steps,
        "arguments": {**size, **loss, **arguments},
    }


def rechub_sasrec(max_len, blocks, dropout):
    arguments = {"num_blocks": blocks, "num_heads": 1, "dropout_rate": dropout}
    rows = {"rows": "sequences", "max_len": max_len, "batch_size": 128, "learning_rate": 1e-3}
    return {"model": "SASRec", "dim": 64, **rows, "arguments": arguments}


def rechub_comirec(max_len):
    training = {"batch_size": 256, "learning_rate": 1e-3, "weight_decay": 1e-6, "temperature": 0.05, "negatives": 64}
    rows = {"rows": "windows", "max_len": max_len}
    return {"model": "ComirecSA", "dim": 64, **rows, **training, "arguments": {"interest_num": 4}}


SHORT = {"max_len": 20, "blocks": 1, "dropout": 0.2}
LONG = {"max_len": 50, "blocks": 2, "dropout": 0.1}  # with 200, a pass over MovieLens 1M takes minutes
SHAPES = {"ml-100k": LONG, "amazon-beauty": SHORT, "amazon-toys": SHORT, "ml-1m": LONG, "diginetica": SHORT}
LIGR = {"ligr": True, "use_key_padding_mask": True}
HSTU = {"relative_time_attention": False, "lightning_module_kwargs": {"logits_t": 0.05}}
LINEAR = {"user_dnn_hidden_units": [], "pooled": "recency+last", "dnn_dropout": 0.2}  # for few events a user
OF_SESSIONS = {"dim": 100, "max_len": 20, "sampler": adaptive(2048), "learning_rate": 2e-3, "falls": True}


def of_rectools(model, **arguments):
    steps = {"ml-100k": 8, "amazon-beauty": 25, "amazon-toys": 25, "ml-1m": 47, "diginetica": 100}
    return {
        name: [rectools(model, negatives=64, steps=steps[name], **shape, **arguments)] for name, shape in SHAPES.items()
    }


FALLING = {"falls": True, "optimizer": "RowwiseAdam"}
BUDGETED = {
    "YoutubeDNN": (
        "quality_ours.py",
        True,
        {
            **everywhere(ours()),
            "ml-1m": [ours(user_dnn_hidden_units=[256, 128, 64], dnn_dropout=0.0)],
            "diginetica": [ours(batch_size=512, **OF_SESSIONS)],
        },
    ),
    "SequenceDNN": (
        "quality_ours.py",
        True,
        {
            "ml-100k": [sequence_dnn(100, 64, 2e-3, **FALLING, **{**LINEAR, "dnn_dropout": 0.3})],
            "amazon-beauty": [sequence_dnn(50, 128, 2e-3, **FALLING, **LINEAR)],
            "amazon-toys": [sequence_dnn(50, 128, 2e-3, **FALLING, **LINEAR)],
            "ml-1m": [sequence_dnn(200, 16, 4e-3, **FALLING)],
            "diginetica": [
                ours(builder="SequenceDNN", rows="sequences", batch_size=128, dnn_dropout=0.2, **OF_SESSIONS)
            ],
        },
    ),
    "SRGNN": ("quality_ours.py", True, {"diginetica": [ours(builder="SRGNN", batch_size=512, **OF_SESSIONS)]}),
    "RecTools: SASRec": ("quality_rectools.py", True, of_rectools("SASRecModel")),
    "RecTools: eSASRec": ("quality_rectools.py", True, of_rectools("SASRecModel", **LIGR)),
    "RecTools: HSTU": ("quality_rectools.py", True, of_rectools("HSTUModel", **HSTU)),
    "torch-rechub: SASRec": (
        "quality_rechub.py",
        True,
        {name: [rechub_sasrec(**shape)] for name, shape in SHAPES.items()},
    ),
    "torch-rechub: ComiRec": (
        "quality_rechub.py",
        True,
        {name: [rechub_comirec(min(50, shape["max_len"]))] for name, shape in SHAPES.items()},
    ),
}
