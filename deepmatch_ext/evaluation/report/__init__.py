"""One HTML file that shows how a model recommends: pictures, numbers, settings. Nothing in it is loaded from elsewhere.

``contents`` collects the figures, ``pictures`` draws, and ``page`` fills the template ``page.html``.
"""

from deepmatch_ext.evaluation.report.contents import write_report

__all__ = ["write_report"]
