"""Draws each model's figure from the model itself, into its page: python docs/models/figures.py

A page has ``<!-- figure -->``, and behind it the figure: a Mermaid diagram of the layers. Dropout, activations and
what only reshapes are left out. Needs Keras 3 and pydot.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from unittest import mock

with mock.patch("threading.Thread.start"):  # DeepCTR asks a package index for its newest version
    from deepctr.feature_column import SparseFeat, VarLenSparseFeat

import tensorflow as tf

from deepmatch_ext import models

FOLDER = Path(__file__).parent
MARK = "<!-- figure -->\n"
LEFT_OUT = ("RepeatableDropout", "Dropout", "Activation", "Reshape", "Flatten")
MERMAIDS_OWN = ("graph", "end", "style", "class", "click", "default")  # words that name no node


def page_of(name: str) -> Path:
    return FOLDER / f"{name.lower()}.md"


def example(name: str) -> Any:
    """A small model with a history, a feature of the user, and where the model takes them features of the item."""
    history = VarLenSparseFeat(SparseFeat("hist_item", 50, 8, embedding_name="item"), 20, "mean", "hist_len")
    user, item = [SparseFeat("city", 50, 8), history], [SparseFeat("item", 50, 8)]
    arguments: dict[str, Any] = {}
    if name == "YoutubeDNN":
        user[1] = VarLenSparseFeat(history.sparsefeat, 20, "recency+last", "hist_len")
    if name == "NCF":
        user = [SparseFeat("user", 50, 8)]
    if name == "DSSM":
        item = [*item, SparseFeat("genre", 9, 8)]
        arguments["item_features"] = {"genre": [0] * 50}
    if name == "SDM":
        arguments["units"] = 8
    return getattr(models, name)(user, item, **arguments)


def figure(model: Any) -> str:
    """The layers of a Keras model as a Mermaid diagram."""
    names = {str(id(layer)): layer.name for layer in model.layers}
    layers = {layer.name: layer for layer in model.layers}
    into: dict[str, list[str]] = {name: [] for name in layers}
    for edge in tf.keras.utils.model_to_dot(model).get_edges():
        source, target = (names[end.strip('"')] for end in (edge.get_source(), edge.get_destination()))
        into[target].append(source)

    def kept(name: str) -> bool:
        return type(layers[name]).__name__ not in LEFT_OUT

    def sources(name: str) -> list[str]:
        found = [each if kept(each) else sources(each) for each in into[name]]
        flat = [one for each in found for one in ([each] if isinstance(each, str) else each)]
        return list(dict.fromkeys(flat))

    def node(name: str) -> str:
        return f"{name}_" if name in MERMAIDS_OWN else name

    lines = ["```mermaid", "flowchart TB"]
    for name, layer in layers.items():
        if kept(name):
            kind = type(layer).__name__
            text = f"{name}" if kind == "InputLayer" else f"{kind}<br><i>{name}</i>"
            box = f'(["{text}"])' if kind == "InputLayer" else f'["{text}"]'
            lines.append(f"    {node(name)}{box}")
    lines += [f"    {node(source)} --> {node(name)}" for name in layers if kept(name) for source in sources(name)]
    return "\n".join([*lines, "```", ""])


def drawn(name: str, text: str) -> str:
    """The page's text with the figure of today's model."""
    before, mark, after = text.partition(MARK)
    after = re.sub(r"^```mermaid\n.*?```\n", "", after, flags=re.DOTALL)
    return f"{before}{mark}{figure(example(name))}{after}" if mark else text


def main() -> None:
    for name in models.__all__:
        page = page_of(name)
        if page.exists():
            page.write_text(drawn(name, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
