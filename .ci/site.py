"""Looks at the built documentation in Chromium: pages complain of nothing and fit their windows, and the search finds.

    python .ci/site.py SITE              # where there is no Chromium, it says so
    python .ci/site.py SITE PICTURES     # and takes a picture of each page at each width

Needs nothing but Python.
"""

import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

PAGES = ["index", "start", "evaluation", "models/youtubednn", "api/recommender"]
WIDTHS = [1280, 390]
QUERY, EXPECTED = "negatives", "negatives-and-losses.html"
# Loads each page in a frame of each width, then searches, and writes what it saw into the document.
LOOK = """<!doctype html><meta charset="utf-8"><title>look</title><body><script>
const wait = ms => new Promise(done => setTimeout(done, ms));
async function framed(url, width) {
  const frame = document.createElement("iframe");
  Object.assign(frame, {width, height: 900, src: url});
  const loaded = new Promise(done => frame.onload = done);
  document.body.append(frame);
  await loaded;
  return frame;
}
(async () => {
  const seen = {pages: [], found: []};
  for (const page of PAGES) for (const width of WIDTHS) {
    const frame = await framed(`/${page}.html`, width), root = frame.contentDocument.documentElement;
    await wait(300);
    seen.pages.push({
      page, width, title: frame.contentDocument.querySelector("h1")?.textContent,
      wide: root.scrollWidth - root.clientWidth,
      broken: [...frame.contentDocument.images].filter(image => !image.naturalWidth).map(image => image.src),
    });
    frame.remove();
  }
  const results = (await framed("/search.html?q=QUERY", 1280)).contentDocument;
  for (let turn = 0; turn < 100 && !results.querySelector("#search-results .search li a"); turn++) await wait(100);
  await wait(1000);
  seen.found = [...results.querySelectorAll("#search-results .search li a")].map(link => link.getAttribute("href"));
  const out = document.createElement("pre");
  out.id = "seen";
  out.textContent = JSON.stringify(seen);
  document.body.replaceChildren(out);
})();
</script></body>"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """The site, and beside it the page that looks at the others."""

    def do_GET(self):
        if self.path != "/look":
            super().do_GET()
            return
        page = LOOK.replace("PAGES)", f"{json.dumps(PAGES)})").replace("WIDTHS)", f"{WIDTHS})").replace("QUERY", QUERY)
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_):
        pass


def chromium(program, *arguments):
    """What it prints, and what pages wrote on its console."""
    with tempfile.TemporaryDirectory() as profile:
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *arguments]
        command += ["--enable-logging=stderr", f"--user-data-dir={profile}", "--virtual-time-budget=60000"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    return done.stdout, re.findall(r"CONSOLE.*", done.stderr)


def faults(program, address):
    """What is wrong with the site, a line each."""
    document, console = chromium(program, "--dump-dom", f"{address}/look")
    seen = re.search(r'<pre id="seen">(.*?)</pre>', document, re.DOTALL)
    if seen is None:
        return ["Chromium did not come to the end of the pages", *console]
    seen = json.loads(html.unescape(seen[1]))
    wrong = [f"on the console: {line}" for line in console]
    for each in seen["pages"]:
        where = f"{each['page']} at {each['width']}"
        if not each["title"]:
            wrong.append(f"{where}: no heading")
        if each["wide"] > 0:
            wrong.append(f"{where}: {each['wide']} pixels wider than its window")
        wrong += [f"{where}: no picture at {source}" for source in each["broken"]]
    if not any(EXPECTED in link for link in seen["found"]):
        wrong.append(f"the search for {QUERY!r} found {len(seen['found'])} pages, none of them {EXPECTED}")
    return wrong


def main(site, pictures=None):
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        print("the documentation was not looked at: there is no Chromium")
        return 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    wrong = faults(program, address)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    if pictures is not None:
        Path(pictures).mkdir(parents=True, exist_ok=True)
        for page in PAGES:
            for width in WIDTHS:
                name = Path(pictures, f"{page.replace('/', '-')}-{width}.png").absolute()
                chromium(program, f"--screenshot={name}", f"--window-size={width},1000", f"{address}/{page}.html")
    print(f"the documentation in Chromium: {len(PAGES)} pages at {len(WIDTHS)} widths, the search; {len(wrong)} faults")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
