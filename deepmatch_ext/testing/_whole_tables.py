"""What a training step's graph does with embedding tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# Vocabulary sizes that no other dimension of a model equals: a tensor's shape then tells whether it is a whole table.
PRIMES = (997, 1009, 1013, 1019, 1021, 1031, 1033, 1039, 1049, 1051)


_OF_ROWS = ("ResourceGather", "ResourceScatter", "ResourceSparseApply", "VariableShape")


def other_readers(
    nodes: Iterable[Any], handles: Mapping[str, str], functions: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """The operations that do more with a table than look rows up or write them, and the table's name.

    Args:
        nodes: Of a graph or a function in it.
        handles: name of the node that is a table's handle there -> the table's name.
        functions: name -> definition of the functions that the nodes may call.
    """
    handles = dict(handles)
    for node in nodes:
        for place, given in enumerate(name for name in node.input if not name.startswith("^")):
            table = handles.get(given.split(":")[0])
            if table is None:
                continue
            called = [attr.func.name for attr in node.attr.values() if attr.HasField("func")]
            called += [func.name for attr in node.attr.values() for func in attr.list.func]
            if node.op == "Identity":
                handles[node.name] = table
            elif called:
                first = 1 if node.op in ("If", "StatelessIf", "Case", "StatelessCase") else 0  # which one to take
                for name in called:
                    inside = functions[name]
                    argument = inside.signature.input_arg[place - first].name
                    yield from other_readers(inside.node_def, {argument: table}, functions)
            elif not node.op.startswith(_OF_ROWS):
                yield f"{node.op} {node.name!r}", table
