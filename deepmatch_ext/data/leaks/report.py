"""What is found: a leak, and the report on all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SEVERITIES = ("leak", "possible", "note")


@dataclass(frozen=True)
class Leak:
    """One way in which a split leaks. As a string it is the finding, an example, and what to do.

    Args:
        kind: A name from the list in :func:`find_leaks`.
        severity: "leak": training, or the input, knows the answer. "possible": it does, unless there is a harmless
            reason that the given data do not show. "note": common and mild; keep it in mind when you read the metrics.
        part: The part whose targets are known too early: "train", "validation", "test", or for counts two of them.
        seen_in: The part that knows them.
        count: How many of ``total`` rows, targets, ids or events, as ``text`` says.
        total: Out of how many.
        text: The finding in words, with the numbers in it.
        example: One case of it. Its row number refers to the interactions for a :class:`Split`, else to the part's
            input.
        remedy: What to do.

    Example:
        >>> from deepmatch_ext.data import Interactions, find_leaks
        >>> interactions = Interactions.from_sequences([0, 3], [1, 2, 3])
        >>> train = {"user_id": [1], "item_id": [2], "hist_item_id": [[1, 0]]}
        >>> test = {"user_id": [1], "item_id": [3], "hist_item_id": [[3, 2]]}  # the target itself comes first
        >>> leak = find_leaks({"train": train, "test": test}, interactions).leaks[0]
        >>> leak.kind, leak.severity, leak.part, leak.count, leak.total
        ('target_in_history', 'leak', 'test', 1, 1)
        >>> leak.remedy
        'Cut each history strictly before its target.'
    """

    kind: str
    severity: str
    part: str
    seen_in: str
    count: int
    total: int
    text: str
    example: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.text} {self.example} {self.remedy}"


@dataclass(frozen=True)
class LeakReport:
    """What :func:`find_leaks` found, and what it could not check. Print it.

    Args:
        leaks: The findings, the most serious first.
        unchecked: What was not checked, and which argument is needed to check it.

    Example:
        >>> from deepmatch_ext.data import Interactions, find_leaks, leave_last_out
        >>> interactions = Interactions.from_sequences([0, 4, 8], [1, 2, 3, 4, 4, 3, 2, 1])
        >>> report = find_leaks(leave_last_out(interactions))
        >>> print(report)
        No leak found.
        not checked: what was later across users, as the interactions have no times.
        not checked: the sampler's counts; give `item_count`.
        >>> report.serious
        ()
    """

    leaks: tuple[Leak, ...]
    unchecked: tuple[str, ...]

    @property
    def serious(self) -> tuple[Leak, ...]:
        """The findings of severity "leak": ``assert not find_leaks(split).serious`` guards a pipeline."""
        return tuple(leak for leak in self.leaks if leak.severity == "leak")

    def __str__(self) -> str:
        lines = [str(leak) for leak in self.leaks] or ["No leak found."]
        return "\n".join(lines + [f"not checked: {what}" for what in self.unchecked])


# What "3 of 9 " is followed by, and what to do.
_TEXTS = {
    "target_in_history": "rows of {part} with their own target in the history.",
    "future_in_history": "rows of {part} with an item in the history that the user had only after the target.",
    "held_out_in_history": "targets of {part} in a history of {seen_in}.",
    "duplicate_target": "targets of {part} that are also a target of {seen_in}, of one user, item and time.",
    "held_out_in_counts": "events of {part}, at least, counted in `item_count`.",
    "strange_item_in_history": "rows of {part} with an item in the history that the user never had.",
    "same_moment_of_another_kind": "rows of {part} with an event of another kind in the history from the very time of "
    "the target.",
    "same_moment": "rows of {part} with an item in the history at exactly the time of the target.",
    "repeated_targets": "targets of {part} with an item that the user had before.",
    "later_in_train": "targets of train later than the first target of {part}, of {first}.",
    "new_items": "items among the targets of {part} that train does not have.",
    "new_users": "users among the targets of {part} that train does not have.",
}
_NEVER_TRAINED = "Their embeddings are never trained: report {rows} targets of {part} separately."
_REMEDIES = {
    "target_in_history": "Cut each history strictly before its target.",
    "future_in_history": "Cut each history strictly before its target, in the order of time.",
    "held_out_in_history": "Make {seen_in} of events that are earlier than the user's targets of {part}.",
    "duplicate_target": "Keep each event in one part. If the source has an event twice by mistake, drop one row.",
    "held_out_in_counts": "Count train alone, as interactions.item_counts(split.train) does.",
    "strange_item_in_history": "Give the interactions that they were cut from; or the histories are another user's.",
    "same_moment_of_another_kind": "Cut the histories of other kinds strictly before the time of the target: it may be "
    "the target itself, recorded twice.",
    "same_moment": "Only the order of the source says which came first.",
    "repeated_targets": "Figures with `seen` count them as misses, or leave them out with seen_targets='leave_out'. "
    "If your product recommends items again, leave `seen` out.",
    "later_in_train": "Training knows other users' futures: always with leave_last_out(), never with split_by_time().",
    "new_items": _NEVER_TRAINED,
    "new_users": _NEVER_TRAINED,
}


def leak(kind: str, severity: str, count: int, total: int, example: str, part: str, seen_in: str, **words: Any) -> Leak:
    """A finding in its words, which ``words`` complete."""
    text, remedy = (of[kind].format(part=part, seen_in=seen_in, **words) for of in (_TEXTS, _REMEDIES))
    return Leak(kind, severity, part, seen_in, count, total, f"{count} of {total} {text}", example, remedy)
