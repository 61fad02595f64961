"""The findings: what was seen, why it is bad, and what to try. Texts continue "After epoch 3, "."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from deepmatch_ext.evaluation.collapse import highest_temperature, lowest_loss
from deepmatch_ext.evaluation.watch.look import Look

# The limits of the warnings. "Healthy": runs on ml-100k, ml-1m, Amazon Beauty and synthetic_interactions that ended
# with a good ranking: uniform, frequency and in-batch samplers, temperatures 0.02 to 0.5, vectors of size 8, 16 and 64.
# They all learn popularity first, and look collapsed during their first 100 to 400 steps of Adam: hence `patience`.
_MAX_CORRELATION = 0.98  # healthy: up to 0.999 in those steps, below 0.9 after them
_MIN_RANK = 1.1  # one direction has 95% of the variance; healthy: 1.3 to 2 while the first tastes come up, then 2 to 30
_MAX_INTEREST_CORRELATION = 0.95
_MAX_ROW_SIZE = (
    10.0  # healthy: below 0.25. Rows start at 0.05 at most; at 10, a step of Adam rotates them 200 times less
)
# CLIP (Radford et al., 2021) clips 1 / temperature at 100. HR@10 on synthetic data after 720 steps, at temperatures
# 0.1, 0.02, 0.01, 0.005 and 0.002: 0.22, 0.19, 0.17, 0.10 and 0.08, with 0.09 for popularity.
_MAX_LOGIT = 100.0
_MAX_FIRST = 0.9  # fraction of unseen targets ranked first; healthy: below 0.1
_MIN_LOSS = 0.05  # exp(-0.05) = 0.95 is then the target's probability among a step's candidates; healthy: loss above 2
_MIN_CANDIDATES = 20  # S of them and a loss L leave up to L / (S log 2) of the items above the target: with one, 7%
_MAX_ZEROS = 0.01
_MIN_STEPS = 30  # before that, mixed precision may have skipped every step to find its loss scale

Finding = tuple[str, str]  # the name of what was found, and the text of the warning


MAY_PASS = {
    "users_alike",
    "one_direction",
    "interests_alike",
    "popular_lists",
    "no_better_than_chance",
    "no_better_than_popularity",
}


def before_training(look: Look) -> Iterator[Finding]:
    """Faults that are there from the start; the texts are whole sentences."""
    yield from _of_temperature(look)
    yield from _of_input(look)


def after_epoch(
    look: Look, users: np.ndarray, items: np.ndarray, figures: Mapping[str, float], loss: float, steps: int
) -> Iterator[Finding]:
    """Faults of finite vectors of users and items that healthy training never shows, after some steps."""
    yield from _of_tables(look, steps)
    yield from _of_zeros(users, items)
    yield from _of_perfection(look, figures, loss)


def passing(look: Look, figures: Mapping[str, float]) -> Iterator[Finding]:
    """Faults that healthy training also shows at first: `MAY_PASS`."""
    yield from _of_likeness(look, figures)
    yield from _of_interests(look, figures)
    yield from _of_lists(look, figures)
    yield from _of_ranking(look, figures)


# The losses with known bounds, and the number of choices from which each has to tell the target; None: all items.
_CHOICES = {"softmax": None, "bpr": 2, "gbce": 2}


def unchecked(look: Look) -> Iterator[str]:
    """What can't be checked, since the model lacks an attribute."""
    if look.loss not in _CHOICES or look.temperature is None:
        if look.loss is None or look.temperature is None:
            why = "the model has no `loss_layer` with a `loss` and a `temperature`"
        else:
            why = f"the bounds of the loss {look.loss!r} are not known"
        yield f"whether the temperature suits L2-normalised vectors, since {why}."
    if look.loss is None:
        yield "the cross-entropy, and whether the training loss is too low, since the model has no `loss_layer`."
    elif look.loss == "softmax" and look.sampler is None:
        yield "whether the training loss is too low, since the model has no `candidates` with a `sampler`."


def _of_temperature(look: Look) -> Iterator[Finding]:
    if look.temperature is None or look.loss not in _CHOICES or not look.is_unit_length:
        return
    temperature, choices = look.temperature, _CHOICES[look.loss] or look.num_items
    highest = highest_temperature(choices)
    if temperature > highest:
        text = (
            f"The temperature, {temperature:g}, is too high for {look.num_items} items: with L2-normalised vectors, "
            f"logits lie within {1 / temperature:.3g} of 0, and no vectors bring the loss below "
            f"{lowest_loss(temperature, choices):.2f}, where a uniform guess has {math.log(choices):.2f}. Training "
            f"can learn little. Give a temperature below {highest:.2f}; 0.05 to 0.3 are usual."
        )
        yield "temperature_too_high", text
    elif 1 / temperature > _MAX_LOGIT:
        text = (
            f"The temperature, {temperature:g}, is too low: with L2-normalised vectors, logits reach "
            f"{1 / temperature:.0f}, so the softmax has all its weight on one candidate, and only that one and the "
            f"target have a gradient. Training is slow and unstable. Give a temperature of at least "
            f"{1 / _MAX_LOGIT:g}; 0.05 to 0.3 are usual."
        )
        yield "temperature_too_low", text


def _of_input(look: Look) -> Iterator[Finding]:
    if look.targets is None or not look.is_large:
        return
    for name, values in look.user_input.items():
        if values.dtype.kind not in "iu":
            continue
        own, others = _share_holding(values, look.targets), _share_holding(values, np.roll(look.targets, 1))
        # An input that also holds others' targets holds most items, or numbers that are not items.
        if own > 0.95 and others < 0.5:
            text = (
                f"The input {name!r} holds the target itself in {own:.0%} of the rows looked at, and another row's "
                f"target in {others:.0%}. A model that is shown the target learns to copy it. Its loss "
                "then falls below what is possible in use, where it fails. End each history before its target. (If "
                "users take the same items again and again, this may be correct.)"
            )
            yield "target_in_input", text


def not_finite(users: np.ndarray, items: np.ndarray, loss: Any) -> Iterator[Finding]:
    bad = [int((~np.isfinite(of)).reshape(len(of), -1).any(axis=1).sum()) for of in (users, items)]
    if any(bad) or (loss is not None and not math.isfinite(loss)):
        text = (
            f"the training loss is {'unknown' if loss is None else f'{loss:.3g}'}, and the vectors of {bad[0]} of the "
            f"{len(users)} users looked at and of {bad[1]} of the {len(items) - 1} items hold NaN or infinity. "
            "Training can't recover from that. Start again from finite weights, with a lower learning rate or with "
            "gradients clipped (`clipnorm`), and look for NaN and very large numbers in the dense inputs."
        )
        yield "not_finite", text


def _of_zeros(users: np.ndarray, items: np.ndarray) -> Iterator[Finding]:
    of_users, of_items = ((~vectors.any(axis=-1)).mean() for vectors in (users, items[1:]))
    if max(of_users, of_items) > _MAX_ZEROS:
        text = (
            f"the vectors of {of_users:.1%} of the users and {of_items:.1%} of the items have length zero. Such a user "
            "gets arbitrary items, such an item is not found, and no gradient reaches the layers before. Look for "
            "ReLUs that are always off (`output_activation='relu'`, too high a learning rate), for empty histories, "
            "and for too strong an L2 penalty."
        )
        yield "zero_vectors", text


def _of_tables(look: Look, steps: int) -> Iterator[Finding]:
    for table in look.tables:
        if steps >= _MIN_STEPS and not table.changed():
            text = (
                f"not one of the {len(table.rows)} rows looked at of the embedding table {table.name!r} has changed in "
                f"{steps} steps. They keep their random start. Check whether the learning rate is 0, "
                "and whether the loss depends on the table. (If the table is not to be trained, set "
                "`trainable=False` on its column.)"
            )
            yield f"never_updated:{table.name}", text
        if table.row_size() > _MAX_ROW_SIZE:
            text = (
                f"the largest rows of the embedding table {table.name!r} have entries with a root mean square of "
                f"{table.row_size():.3g}; they start at 0.05 at most. A step rotates an L2-normalised row "
                "less the larger it is, until training makes no progress; other rows drown the features that are "
                "concatenated with them. Lower the learning rate, clip gradients (`clipnorm`), or "
                "set `l2_reg_embedding`."
            )
            yield f"rows_explode:{table.name}", text


def _of_perfection(look: Look, figures: Mapping[str, float], loss: float) -> Iterator[Finding]:
    # None: all items or the batch's.
    many = look.sampler is not None and (look.sampler.num_sampled or _MIN_CANDIDATES) >= _MIN_CANDIDATES
    if look.loss == "softmax" and look.is_large and many and loss < _MIN_LOSS:
        first = f", and {figures['HR@1']:.1%} of the targets looked at are ranked first" if "HR@1" in figures else ""
        text = (
            f"the training loss is {loss:.3g}: the target is told from the candidates with a probability of "
            f"{min(1, math.exp(-loss)):.1%}{first}. Hardly any data allow that. Either the input holds the target, or "
            "the model overfits the training rows, or the candidates are too easy. Compare with the ranking of "
            "held-out targets: if it is as good, suspect a leak; if it is far worse, overfitting. (Sample weights far "
            "below 1 make the loss small, too.)"
        )
        yield "loss_too_low", text
    if "HR@1" in figures and look.is_large and figures["HR@1"] > _MAX_FIRST and look.most_frequent < 0.5:
        text = (
            f"{figures['HR@1']:.1%} of the targets looked at are ranked first among {look.num_items} items. Hardly any "
            "held-out data allow that. Look for the target in the input: a history that ends one item too late, or a "
            "feature that is known only afterwards. (With rows that the model is trained on, it is overfitting.)"
        )
        yield "ranking_too_good", text


def _of_likeness(look: Look, figures: Mapping[str, float]) -> Iterator[Finding]:
    # Seen on Amazon Beauty and ml-1m with uniform negatives, temperature 0.05 and Adam at 0.003: for more than 1000
    # steps a correlation of 0.999, and a ranking behind popularity. On Beauty each of the three cures brought it below
    # 0.5 in 645 steps.
    correlation, rank = figures["score_correlation"], figures["user_rank"]
    dim = look.model.user_emb.shape[-1]
    if correlation > _MAX_CORRELATION:
        text = (
            f"all users get nearly the same scores: those of two users have a correlation of {correlation:.3f} over "
            f"the items (their vectors, a mean cosine of {figures['user_cosine']:.3f}). Everyone is recommended the "
            f"same: the lists of {look.num_users} users hold {figures['coverage']:.1%} of the items that they could "
            "hold. A lower learning rate, a temperature nearer to 0.1 or a sampler by frequency instead of a uniform "
            "one have each solved this. Otherwise look for a tower whose output hardly depends on its input: a bias "
            "that dominates, ReLUs that are always off, a feature of far larger numbers than the others."
        )
        yield "users_alike", text
    elif dim >= 4 and rank < _MIN_RANK:
        text = (
            f"the users' vectors differ along {rank:.2f} of {dim} directions: nearly all that the model knows of a "
            "user is a position on one scale. Look for a layer of the tower with too few units or with ReLUs that are "
            "always off, and for a feature that drowns the others; lower the learning rate if the loss jumps."
        )
        yield "one_direction", text


def _of_interests(look: Look, figures: Mapping[str, float]) -> Iterator[Finding]:
    correlation = figures.get("interest_correlation", 0.0)
    if correlation > _MAX_INTEREST_CORRELATION:
        text = (
            f"the {look.num_interests} interests of a user are nearly equal: the scores of two of them have a "
            f"correlation of {correlation:.3f} over the items. They find what one vector would find, at "
            f"{look.num_interests} times the cost. Give `p` a higher value, so that only the nearest interest is "
            "trained, give `routing_scale` a higher value, take fewer interests (`k_max`), or train longer."
        )
        yield "interests_alike", text


def _of_lists(look: Look, figures: Mapping[str, float]) -> Iterator[Finding]:
    if look.popularity is None:
        return
    share = figures["popular_share"]
    if share > (1 + look.consumed) / 2:  # more than halfway from what is consumed to nothing else
        text = (
            f"{share:.0%} of the recommendations are the {look.n} most popular items that the user has not had; the "
            f"{look.n} most popular items make up {look.consumed:.1%} of the consumption. The model does little more "
            "than a list of best-sellers. Train longer or with a higher learning rate, use a sampler by frequency "
            "(whose effect the loss corrects), and check whether the histories reach the model."
        )
        yield "popular_lists", text


def _of_ranking(look: Look, figures: Mapping[str, float]) -> Iterator[Finding]:
    if look.targets is None:
        return
    percentile, hits = figures["percentile"], figures[f"HR@{look.n}"]
    if percentile <= look.chance < 0.9:  # with so few targets that chance might reach 0.9, nothing can be said
        loss = ""
        if "cross_entropy" in figures:
            loss = (
                f" (a cross-entropy of {figures['cross_entropy']:.2f} over all items; a uniform guess has "
                f"{math.log(look.num_items):.2f})"
            )
        text = (
            f"the targets rank above {percentile:.1%} of the other items{loss}. Random ranking gives 50% on "
            f"average, and up to {look.chance:.1%} for these targets. Nothing useful has been learnt. "
            "Check the learning rate and the temperature, and whether inputs and targets have the same rows and ids."
        )
        yield "no_better_than_chance", text
    elif look.popularity is not None:
        popular = look.of_popularity
        if percentile <= popular["percentile"] and hits <= popular[f"HR@{look.n}"]:
            text = (
                f"the targets rank above {percentile:.1%} of the other items, and {hits:.1%} of them are in the first "
                f"{look.n}. The most popular items, the same for everyone, reach {popular['percentile']:.1%} and "
                f"{popular[f'HR@{look.n}']:.1%}. Train longer or with another learning rate or temperature, and check "
                "whether the histories reach the model."
            )
            yield "no_better_than_popularity", text


def _share_holding(values: np.ndarray, targets: np.ndarray) -> float:
    """The fraction of rows whose ``values`` (B, ...) hold the row's target (B,)."""
    return float((values.reshape(len(values), -1) == targets[:, None]).any(axis=1).mean())
