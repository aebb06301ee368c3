"""Ignores the end of its input and SIGTERM, and has a daemon: another session, another parent, deaf as well."""

import json
import os
import signal
import sys
import time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(writer, b"%d" % os.getpid())
        os.close(0)
        while True:
            time.sleep(600)
    os._exit(0)
os.wait()
daemon = int(os.read(reader, 32))
for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        result = {"pid": os.getpid(), "daemon": daemon}
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)
        if request.get("params", {}).get("name") == "exit":
            os._exit(5)
while True:
    time.sleep(600)
