"""A small web service: ``/`` greets, ``/healthz`` says ok, ``/info`` tells about the process."""

import json
import os
import pathlib
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BUILD = pathlib.Path(__file__).with_name("build.json")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/":
            self.reply("text/plain", "Hello from an image that pybuild made.\n")
        elif self.path == "/healthz":
            self.reply("text/plain", "ok\n")
        elif self.path == "/info":
            build = json.loads(BUILD.read_text()) if BUILD.exists() else {}
            facts = {"pid": os.getpid(), "uid": os.getuid(), "gid": os.getgid(), "cwd": os.getcwd(), **build}
            self.reply("application/json", json.dumps(facts) + "\n")
        else:
            self.send_error(404)

    def reply(self, kind, text):
        data = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, form, *args):
        print(f"{self.address_string()} {form % args}", file=sys.stderr)


def main():
    port = int(os.environ.get("PORT", "8000"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    server = ThreadingHTTPServer((os.environ.get("HOST", ""), port), Handler)
    print(f"listening on port {server.server_port}", flush=True)
    server.serve_forever()


main()
