"""The check that no training step touches a whole table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from deepmatch_ext._keras import graph_of_step, input_name, raw_variable
from deepmatch_ext.optimizers import LazyAdam
from deepmatch_ext.testing._checks.check import check
from deepmatch_ext.testing._data import as_tensors, of_size, sparse
from deepmatch_ext.testing._expect import Broken, expect
from deepmatch_ext.testing._trial import Trial

# Vocabulary sizes that no other dimension of a model equals: a tensor's shape then tells whether it is a whole table.
_PRIMES = (997, 1009, 1013, 1019, 1021, 1031, 1033, 1039, 1049, 1051)


@check
def whole_tables(trial: Trial) -> None:
    """No training step reads or writes a whole table: not in its graph, not in its gradients."""
    sides = trial.kinds()[0]
    names = dict.fromkeys(column.embedding_name for side in sides for column in sparse(side))
    sizes = dict(zip(names, _PRIMES, strict=False))
    user, items = ([of_size(column, sizes) for column in side] for side in sides)
    model = trial.model(user, items)
    handed: list[tuple[Any, Any]] = []  # (gradient, variable), as the step passes them on
    model.compile(_recording(handed))
    model.optimizer.build(model.trainable_variables)
    x = trial.data(13, 5, user, items)
    batch = dict(zip(map(input_name, model.inputs), as_tensors(model.inputs, x, 13), strict=True))

    tables = {}
    for variable in [*model.weights, *model.optimizer.variables]:
        raw = raw_variable(variable)
        if raw.shape.rank and raw.shape[0] in sizes.values():
            tables[id(raw.handle)] = getattr(variable, "path", variable.name)
    expect(tables, "an embedding table must have a row for each id", "no such variable")

    graph = graph_of_step(model, (batch, tf.zeros([13, 1])))
    expect(handed, "a training step must hand gradients to its optimizer", "none")
    for gradient, variable in handed:
        name = getattr(variable, "path", variable.name)
        expect(gradient is not None, f"a training step must have a gradient of {name!r}", "none: nothing reads it")
        table = tables.get(id(raw_variable(variable).handle))
        if table is not None:
            rule = f"the gradient of {table!r} must be tf.IndexedSlices, of the rows read"
            expect(isinstance(gradient, tf.IndexedSlices), rule, f"a tensor of shape {tuple(gradient.shape)}")

    wholes = {each for size in sizes.values() for each in (size, size - 1)}  # with padding, and all items
    handles = {inside.op.name: tables[id(outside)] for outside, inside in graph.captures if id(outside) in tables}
    definition = graph.as_graph_def(add_shapes=True)
    functions = {function.signature.name: function for function in definition.library.function}
    for operation, table in _other_readers(definition.node, handles, functions):
        rule = f"a training step must look rows of {table!r} up, gather and scatter them, and do nothing else with it"
        raise Broken(f"{rule}; got the operation {operation}")
    for node in [*definition.node, *(node for function in functions.values() for node in function.node_def)]:
        for shape in node.attr["_output_shapes"].list.shape:
            dims = [dim.size for dim in shape.dim]
            if wholes.intersection(dims):
                rule = "no tensor of a training step may have a row for each id of a vocabulary"
                raise Broken(f"{rule}; got shape {dims} from the operation {node.op} {node.name!r}")


def _recording(handed: list[tuple[Any, Any]]) -> LazyAdam:
    """An optimizer that adds to ``handed`` what a step passes to it."""

    class Recording(LazyAdam):
        def _step(self, grads_and_vars: list[tuple[Any, Any]]) -> None:
            handed.extend(grads_and_vars)
            super()._step(grads_and_vars)

    return Recording(0.01)


_OF_ROWS = ("ResourceGather", "ResourceScatter", "ResourceSparseApply", "VariableShape")


def _other_readers(
    nodes: Iterable[Any], handles: Mapping[str, str], functions: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """The operations that do more with a table than look rows up or write them, and the table's name.

    Args:
        nodes: The nodes of a graph or of a function in it.
        handles: name of the node that is a table's handle in it -> the table's name.
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
                    yield from _other_readers(inside.node_def, {argument: table}, functions)
            elif not node.op.startswith(_OF_ROWS):
                yield f"{node.op} {node.name!r}", table
