"""Starts a child of its own that ignores SIGTERM, tells both process ids, then serves until its input ends."""

import json
import os
import subprocess
import sys

CODE = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
grandchild = subprocess.Popen([sys.executable, "-S", "-c", CODE], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
grandchild.stdout.readline()
for line in sys.stdin:
    request = json.loads(line)
    result = {"pid": os.getpid(), "grandchild": grandchild.pid}
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)
os._exit(0)
