"""Mermaid diagrams as pictures that are drawn while the site is built, so that a page loads no script for them."""

import hashlib
import os
from pathlib import Path

import mmdr
from docutils import nodes
from docutils.parsers.rst import Directive


class Mermaid(Directive):
    has_content = True

    def run(self):
        source, env = "\n".join(self.content), self.state.document.settings.env
        picture = Path(env.app.doctreedir) / "mermaid" / f"{hashlib.sha256(source.encode()).hexdigest()[:16]}.svg"
        picture.parent.mkdir(parents=True, exist_ok=True)
        # Boxes are measured for a narrower font than many browsers have.
        drawn = mmdr.render(source).svg().replace("font-size:14px", "font-size:13px")
        picture.write_text(drawn, encoding="utf-8")
        path = os.path.relpath(picture, Path(env.doc2path(env.docname)).parent)
        return [nodes.image(uri=path, alt="Diagram of what the text describes", classes=["diagram"])]


def setup(app):
    app.add_directive("mermaid", Mermaid)
    return {"parallel_read_safe": True}
