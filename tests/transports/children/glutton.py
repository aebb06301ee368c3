"""Tells its limits, and tries to exceed one when a tool of that name is called."""

import json
import os
import resource
import sys
import time
from contextlib import suppress

for line in sys.stdin:
    request = json.loads(line)
    name = request.get("params", {}).get("name")
    result: dict[str, object] = {}
    try:
        if name == "memory":
            result["got"] = len(bytearray(512 * 1024 * 1024))
        elif name == "open_files":
            while True:
                os.dup(0)
        elif name == "file_size":
            with open(request["params"]["path"], "wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 65536)
        elif name == "cpu_time":
            while time.process_time() < 60:
                pass
        elif name == "write":
            with open(request["params"]["path"], "w") as file:
                file.write("written")
        elif name == "read":
            with open(request["params"]["path"]) as file:
                result["text"] = file.read()
        elif name == "list":
            result["names"] = sorted(os.listdir(request["params"]["path"]))
    except (OSError, MemoryError) as error:
        result["error"] = f"{type(error).__name__}: {getattr(error, 'strerror', '')}"
        for fd in range(3, 300):
            with suppress(OSError):
                os.close(fd)
    names = ("NOFILE", "CORE", "AS", "FSIZE", "CPU")
    result["limits"] = {each: resource.getrlimit(getattr(resource, f"RLIMIT_{each}"))[1] for each in names}
    result["uid"] = os.getuid()
    print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)
