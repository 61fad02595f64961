"""What is found: a leak, and the report on all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

SEVERITIES = ("leak", "possible", "note")


@dataclass(frozen=True)
class Leak:
    """One way in which a split leaks. As a string it is a sentence, an example, and what to do.

    Args:
        kind: A name from the list in :func:`find_leaks`.
        severity: "leak": training, or the input, knows what the model is asked. "possible": it does, unless there is a
            harmless reason that what was given can't tell. "note": common and mild; to know when figures are read.
        part: The part whose targets are known too early: "train", "validation", "test", or for counts two of them.
        seen_in: The part that knows them.
        count: How many of ``total`` rows, targets, ids or events, as ``text`` says.
        total: Out of how many.
        text: The finding as a sentence.
        example: One case of it. A row is one of the interactions for a :class:`Split`, else one of the part's input.
        remedy: What to do.
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
    """What :func:`find_leaks` found, and what it could not look at. Print it.

    Args:
        leaks: The findings, gravest first.
        unchecked: What was not looked at, and what to give for it.
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


class _Sentences(NamedTuple):
    """What "3 of 9 " is followed by, what to do, and an example."""

    text: str
    remedy: str
    example: str = "Row {row}: user {user}, item {item}."


_WITH_ITEM = "Row {row}: user {user}, item {item}, with item {other} in its history."
_NEVER_TRAINED = (
    "Embeddings of such ids are never trained, those of {rows} targets of {part}. A map of all events gives such ids, "
    "a live system has none: report these targets apart."
)

# By kind and severity.
_SENTENCES = {
    ("target_in_history", "leak"): _Sentences(
        "rows of {part} {have} {their} own target in {their} history.", "Cut each history strictly before its target."
    ),
    ("future_in_history", "leak"): _Sentences(
        "rows of {part} {have} an item in {their} history that the user had only after the target.",
        "Cut each history strictly before its target, in the order of time.",
        _WITH_ITEM,
    ),
    ("held_out_in_history", "leak"): _Sentences(
        "targets of {part} {are} in a history of {seen_in}.",
        "Make {seen_in} of events that are earlier than the user's targets of {part}.",
    ),
    ("duplicate_target", "leak"): _Sentences(
        "targets of {part} {are} also a target of {seen_in}, of the same user.", "Keep each event in one part."
    ),
    ("duplicate_target", "possible"): _Sentences(
        "targets of {part} {are} also a target of {seen_in}, of the same user at the same time.",
        "Drop repeated rows from the source; it is no leak if the user did have the item twice.",
    ),
    ("held_out_in_counts", "leak"): _Sentences(
        "events of {part}, at least, {are} counted in `item_count`.",
        "Count train alone, as interactions.item_counts(split.train) does.",
        "Item {item}: {counted:g} counted, of which {free} can be of train.",
    ),
    ("strange_item_in_history", "possible"): _Sentences(
        "rows of {part} {have} an item in {their} history that the user never had, by the interactions.",
        "Give the interactions that the histories were cut from; or the histories are another user's.",
        _WITH_ITEM,
    ),
    ("same_moment", "note"): _Sentences(
        "rows of {part} {have} an item in {their} history from the very time of the target.",
        "Only the order of the source says which came first.",
        _WITH_ITEM,
    ),
    ("repeated_targets", "note"): _Sentences(
        "targets of {part} {are} of an item that the user had before.",
        "Figures that are made with `seen` count them as misses, since what a user had is not recommended; "
        "seen_targets='leave_out' leaves them out. Where items are recommended again, leave `seen` out.",
    ),
    ("later_in_train", "note"): _Sentences(
        "targets of train {are} later than the first target of {part}, of {first}.",
        "So training knows other users' futures. Leave-last-out does by nature; split_by_time() splits as a live "
        "system would.",
        "Row {row}: user {user}, item {item}, of {other}.",
    ),
    ("new_items", "note"): _Sentences(
        "items among the targets of {part} {are} not in train but {have} an id.", _NEVER_TRAINED, "Item {new}."
    ),
    ("new_users", "note"): _Sentences(
        "users among the targets of {part} {are} not in train but {have} an id.", _NEVER_TRAINED, "User {new}."
    ),
}


def leak(kind: str, severity: str, count: int, total: int, *, part: str, seen_in: str, **words: Any) -> Leak:
    """A finding in its sentences, whose {are}, {have} and {their} agree with the count; ``words`` fill the rest."""
    one = count == 1
    words |= {"are": "is" if one else "are", "have": "has" if one else "have", "their": "its" if one else "their"}
    text, remedy, example = (
        sentence.format(part=part, seen_in=seen_in, **words) for sentence in _SENTENCES[kind, severity]
    )
    return Leak(kind, severity, part, seen_in, count, total, f"{count} of {total} {text}", example, remedy)
