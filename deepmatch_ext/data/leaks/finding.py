"""What is found: a leak, and the report on all of them."""

from __future__ import annotations

from dataclasses import dataclass

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


def counted(count: int, total: int, text: str) -> str:
    """ "3 of 9 " and ``text``, whose {are}, {have}, {their} agree with the number."""
    one = count == 1
    return f"{count} of {total} " + text.format(
        are="is" if one else "are", have="has" if one else "have", their="its" if one else "their"
    )
