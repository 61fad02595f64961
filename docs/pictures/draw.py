"""Draws the pictures of the pages: python docs/pictures/draw.py [towers history measure curves report]

Each has a light ground of its own, so that it reads in dark mode, too. `towers` and `history` are drawn from what
stands here. `measure` trains three models, a minute each, and `curves` draws
what they have left in curves.json. `report` needs the extra `report` and Chromium.
"""

from __future__ import annotations

import html
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
INK, FAINT, LINE, GROUND = "#1f2933", "#5b6770", "#9aa5b1", "#ffffff"
BLUE, GREEN, AMBER, GREY = "#dbe9fb", "#ddf3e4", "#fdecc8", "#eef1f4"


class Drawing:
    """An SVG of a given size, in pixels."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height = width, height
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" font-family="system-ui, Segoe UI, Helvetica, Arial, sans-serif" font-size="14">',
            f"<title>{html.escape(title)}</title>",
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0 0 10 5 0 10z" fill="{FAINT}"/></marker></defs>',
            f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="10" fill="{GROUND}" stroke="#d5dbe1"/>',
        ]

    def box(self, x: float, y: float, width: float, height: float, lines: str, fill: str = GREY) -> None:
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="6" fill="{fill}" stroke="{LINE}"/>'
        )
        rows = lines.split("\n")
        for k, line in enumerate(rows):
            at = y + height / 2 + 5 + 18 * (k - (len(rows) - 1) / 2)
            self.text(x + width / 2, at, line, colour=INK if k == 0 else FAINT, size=14 if k == 0 else 12.5)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        anchor: str = "middle",
        colour: str = INK,
        size: float = 14,
        bold: bool = False,
    ) -> None:
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}" font-size="{size}"{weight}>'
            f"{html.escape(text)}</text>"
        )

    def arrow(self, *points: tuple[float, float]) -> None:
        path = " ".join(f"{x},{y}" for x, y in points)
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{FAINT}" stroke-width="1.5" marker-end="url(#head)"/>'
        )

    def line(self, points: list[tuple[float, float]], colour: str, width: float = 2, dash: str = "") -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>')

    def write(self, name: str) -> None:
        (FOLDER / name).write_text("\n".join([*self.parts, "</svg>", ""]), encoding="utf-8")


def towers() -> None:
    """From the columns of both sides to vectors, and from these to a loss while training, to a list when serving."""
    d = Drawing(860, 400, "Two towers, trained with sampled softmax, and the nearest items that are recommended")
    d.text(215, 32, "User tower", bold=True)
    d.text(560, 32, "Item tower", bold=True)
    d.box(30, 48, 170, 52, "user's features\ncity, age, ...", BLUE)
    d.box(230, 48, 170, 52, "history\nmost recent first", BLUE)
    d.box(475, 48, 170, 52, "item id and features\ngenre, price, ...", GREEN)
    d.box(30, 130, 170, 44, "embedding tables")
    d.box(230, 130, 415, 44, "item table\none row for each item, shared by both sides")
    d.box(230, 204, 170, 44, "pooling\nrecency+last")
    d.box(30, 278, 370, 44, "dense layers, L2 norm\nuser vector, D numbers", BLUE)
    d.box(475, 278, 170, 44, "dense layers, L2 norm\nitem vector, D numbers", GREEN)
    for x, top, bottom in ((115, 100, 130), (315, 100, 130), (560, 100, 130), (115, 174, 278), (315, 174, 204)):
        d.arrow((x, top), (x, bottom))
    d.arrow((315, 248), (315, 278))
    d.arrow((560, 174), (560, 278))
    d.box(680, 122, 155, 60, "sampler\nnegatives", AMBER)
    d.arrow((680, 152), (645, 152))
    d.box(230, 344, 290, 40, "score: inner product", GREY)
    d.arrow((315, 322), (315, 344))
    d.arrow((560, 322), (560, 364), (520, 364))
    d.box(680, 260, 155, 60, "training\nsampled softmax", AMBER)
    d.box(680, 330, 155, 54, "serving\nnearest items", AMBER)
    d.arrow((520, 372), (680, 372))
    d.arrow((600, 372), (600, 340), (665, 340), (665, 290), (680, 290))
    d.write("towers.svg")


def history() -> None:
    """A history with room for six items: ids, padded; a mask; rows of the table; one vector."""
    d = Drawing(780, 372, "What a history becomes: padded ids, a mask, embedded rows, pooled vectors")
    left, step, high = 250, 66, 34
    ids, ranks = ["7", "3", "9", "0", "0", "0"], ["1", "1/2", "1/3", "", "", ""]

    def label(y: float, name: str, shape: str) -> None:
        d.text(30, y + 16, name, "start")
        d.text(30, y + 33, shape, "start", FAINT, 12.5)

    def cells(y: float, texts: list[str], fills: list[str]) -> None:
        for k, (text, fill) in enumerate(zip(texts, fills, strict=True)):
            d.box(left + k * step, y, step - 8, high, text, fill)

    label(24, "the user had, in order of time", "9, then 3, then 7")
    d.text(left, 46, "most recent first, cut or padded with 0 at the end:", "start", FAINT, 13)
    label(70, "ids", "hist_item_id (B, T), T = 6")
    cells(70, ids, [BLUE] * 3 + [GREY] * 3)
    label(128, "mask", "from hist_len (B, 1) = 3")
    cells(128, ["1", "1", "1", "0", "0", "0"], [GREEN] * 3 + [GREY] * 3)
    label(186, "rows of the item table", "(B, T, D); padding is not read")
    cells(186, ["e(7)", "e(3)", "e(9)", "", "", ""], [BLUE] * 3 + [GREY] * 3)
    label(244, "weights of recency", "1 / rank")
    cells(244, ranks, [AMBER] * 3 + [GREY] * 3)
    for k in range(3):
        x = left + k * step + (step - 8) / 2
        for top in (104, 162, 220):
            d.arrow((x, top), (x, top + 24))
    label(312, "pooled by recency+last", "(B, 2 D)")
    d.box(left, 310, 254, 40, "recency: sum of w e / sum of w", BLUE)
    d.box(left + 264, 310, 130, 40, "last: e(7)", BLUE)
    d.arrow((left + 95, 278), (left + 95, 310))
    right = left + 6 * step + 12
    d.arrow((left + 46, 220), (left + 46, 232), (right, 232), (right, 330), (left + 394, 330))
    d.text(right + 14, 284, "the first row,", "start", FAINT, 12.5)
    d.text(right + 14, 301, "once more", "start", FAINT, 12.5)
    d.write("history.svg")


def measured(seed: int, epochs: int) -> dict[str, list[float]]:
    """Loss and validation NDCG@10 after each epoch, on the data and with the model of docs/start.md."""
    from deepctr.feature_column import SparseFeat, VarLenSparseFeat

    from deepmatch_ext import YoutubeDNN
    from deepmatch_ext.data import leave_last_out, seen_before, synthetic_interactions, windows
    from deepmatch_ext.evaluation import RetrievalMetrics
    from deepmatch_ext.optimizers import LazyAdam

    interactions = synthetic_interactions(num_users=2000).interactions
    split = leave_last_out(interactions)
    train = windows(interactions, split.train_targets(), 50)
    validation = windows(interactions, split.validation, 50)
    items = interactions.item_vocabulary_size
    column = VarLenSparseFeat(
        SparseFeat("hist_item_id", items, 64, embedding_name="item_id"), 50, "recency+last", "hist_len"
    )
    model = YoutubeDNN([column], [SparseFeat("item_id", items, 64)], seed=seed)
    model.compile(LazyAdam(1e-3))
    seen = seen_before(interactions, split.validation)
    watch = RetrievalMetrics(validation, validation["item_id"], seen=seen)
    done: Any = model.fit(train, batch_size=1024, epochs=epochs, callbacks=[watch], verbose=0)
    return {"loss": done.history["loss"], "NDCG@10": done.history["val_NDCG@10"]}


def measure(epochs: int = 40) -> None:
    runs = [{"seed": seed, **measured(seed, epochs)} for seed in (1, 2, 3)]
    (FOLDER / "curves.json").write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")


def curves() -> None:
    runs = json.loads((FOLDER / "curves.json").read_text(encoding="utf-8"))
    epochs = len(runs[0]["loss"])
    d = Drawing(860, 340, "The training loss falls at every epoch, while validation NDCG@10 soon stops rising")
    panels = (
        ("loss", "training loss (sampled softmax)", "#2f6fb7", 70, (4.5, 5, 5.5, 6, 6.5), "{:.1f}"),
        ("NDCG@10", "validation NDCG@10", "#2b8a57", 490, (0.1, 0.11, 0.12, 0.13, 0.14), "{:.2f}"),
    )
    width, top, height = 330, 58, 200
    for name, title, colour, left, ticks, form in panels:
        low, high = ticks[0], ticks[-1]
        xs = [left + width * epoch / (epochs - 1) for epoch in range(epochs)]
        lines = [[top + height * (high - value) / (high - low) for value in run[name]] for run in runs]
        d.text(left + width / 2, 34, title, bold=True)
        for tick in ticks:
            y = top + height * (high - tick) / (high - low)
            d.line([(left, y), (left + width, y)], "#e3e8ed", 1)
            d.text(left - 8, y + 4, form.format(tick), "end", FAINT, 12)
        for epoch in (1, *range(10, epochs + 1, 10)):
            d.text(xs[epoch - 1], top + height + 20, str(epoch), colour=FAINT, size=12)
        d.text(left + width / 2, top + height + 40, "epoch", colour=FAINT, size=12.5)
        for ys in lines:
            d.line(list(zip(xs, ys, strict=True)), colour, 1.8)
            if name == "NDCG@10":
                best = min(range(epochs), key=ys.__getitem__)
                d.parts.append(f'<circle cx="{xs[best]:.1f}" cy="{ys[best]:.1f}" r="4" fill="{colour}"/>')
    note = "Generated data, 2,000 users, seeds 1, 2 and 3; the dots are the best epochs"
    d.text(430, 324, note, colour=FAINT, size=12.5)
    d.write("curves.svg")


def report() -> None:
    """The head of the report that the example writes, as Chromium shows it."""
    with tempfile.TemporaryDirectory() as folder:
        script = FOLDER.parents[1] / "examples" / "run_youtubednn.py"
        page = Path(folder) / "report.html"
        subprocess.run([sys.executable, script, "--report", page], check=True)
        size = ["--window-size=1000,1250", "--hide-scrollbars"]
        picture = f"--screenshot={FOLDER / 'report.png'}"
        subprocess.run(["chromium", "--headless=new", "--no-sandbox", *size, picture, page.as_uri()], check=True)


def main() -> None:
    pictures = {"towers": towers, "history": history, "measure": measure, "curves": curves, "report": report}
    for name in sys.argv[1:] or pictures:
        pictures[name]()


if __name__ == "__main__":
    main()
