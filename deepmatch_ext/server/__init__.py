"""Serves exports of `export_recommender` over HTTP: checks requests, computes them in batches, loads new versions.

It needs TensorFlow and the extra ``serve``, and loads neither the rest of this package nor DeepCTR. examples/serve.py
is a server built with it; docs/serving.md explains it.
"""

from deepmatch_ext.server.app import make_app
from deepmatch_ext.server.export import Query, ServedExport, highest
from deepmatch_ext.server.service import Service, TooManyWait

__all__ = ["Query", "ServedExport", "Service", "TooManyWait", "highest", "make_app"]
