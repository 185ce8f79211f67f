"""Exit 0 when the service answers."""

import os
import sys
import urllib.request

port = os.environ.get("PORT", "8000")
with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as reply:
    sys.exit(0 if reply.status == 200 else 1)
