"""Answers what it was asked by its method and target alone; a listener gets no answer, for it goes on until it ends."""

import json
import sys

for line in sys.stdin:
    request = json.loads(line)
    if "id" in request and request["method"] != "subscriptions/listen":
        params = request.get("params", {})
        result = {"method": request["method"], "target": params.get("name", params.get("uri"))}
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)
