"""Serves what `deepmatch_ext.serving.export_recommender` wrote, over HTTP: JSON in, recommendations out.

    pip install -e ".[serve]"
    python examples/serve.py exports/recommender --port 8000

    curl --json '{"user": {"hist_item_id": [5, 4, 3]}, "n": 10, "seen": [5, 4, 3]}' localhost:8000/recommend

The folder's highest version is served, and when a higher one appears, the server switches to it without a pause. On
SIGTERM it ends once the requests in progress are answered. docs/serving.md has the details.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported

import uvicorn

from deepmatch_ext.server import Service, highest, make_app


def main(argv=None):
    """Runs the server until a signal ends it; returns the exit status: 0, or 2 for an export that can't be served."""
    args = parse_arguments(argv)
    try:
        export = highest(args.folder)
    except (OSError, ValueError) as error:
        print(f"serve.py: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    service = Service(args.folder, export, args.max_batch, args.max_waiting, args.poll_seconds)
    app, grace = make_app(service, args.max_n), args.grace_seconds
    uvicorn.run(app, host=args.host, port=args.port, access_log=False, timeout_graceful_shutdown=grace)
    return 0


def parse_arguments(argv):
    def whole(text):
        if not text.isdecimal() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least 1; got {text!r}")
        return int(text)

    parser = argparse.ArgumentParser(
        prog="serve.py",
        description=__doc__.splitlines()[0],
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="the folder with the exported versions")
    parser.add_argument("--host", default="127.0.0.1", help="where it listens")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one")
    parser.add_argument("--max-n", type=whole, default=1000, help="the largest number of items in a request")
    parser.add_argument("--max-batch", type=whole, default=64, help="users computed at once")
    parser.add_argument("--max-waiting", type=whole, default=1024, help="requests that may wait; more get 503")
    parser.add_argument("--poll-seconds", type=float, default=1.0, help="between checks for a new version")
    parser.add_argument("--grace-seconds", type=whole, default=30, help="for requests in progress at the end")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
