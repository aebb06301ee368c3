"""A server that answers what it was asked, and does a few other things when told to by the name of a tool."""

import json
import os
import sys
import time


def say(**message: object) -> None:
    """Write one message."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Write to standard error."""
    sys.stderr.write(text)
    sys.stderr.flush()


heard = []
for line in sys.stdin:
    message = json.loads(line)
    heard.append(message)
    params = message.get("params", {})
    name = params.get("name")
    reply_to = message.get("id")
    if reply_to is None:
        continue
    if name == "hang":
        continue
    if name == "die":
        complain(f"working on it\nfatal: out of luck, key {os.environ.get('API_KEY')}\n")
        sys.exit(3)
    if name == "crash":
        os.abort()
    if name == "environment":
        say(id=reply_to, result=dict(os.environ))
    elif name == "heard":
        say(id=reply_to, result={"heard": heard})
    elif name == "flood":
        for _ in range(160):
            complain("x" * 65535 + "\n")
        say(id=reply_to, result={})
    elif name == "garbage":
        print("Server listening on port 3000\n\n{not json}\n[1, 2]\n42\n" + '{"level": "info"}')
        sys.stdout.buffer.write(b"\xff\xfe\n")
        say(id=reply_to, result={"after": "noise"})
    elif name == "giant":
        sys.stdout.write(f'{{"jsonrpc":"2.0","id":{reply_to},"result":{{"text":"')
        for _ in range(params.get("pieces", 32)):
            sys.stdout.write("y" * 65536)
        sys.stdout.write('"}}\n')
        sys.stdout.flush()
    elif name == "unfinished":
        sys.stdout.write(f'{{"jsonrpc":"2.0","id":{reply_to},"result":{{"last":true}}}}')
        sys.exit(0)
    elif name == "close stdout":
        complain("no more words\n")
        os.close(1)
        sys.stdin.read()
        time.sleep(600)
    elif name == "close stdin":
        os.close(0)
        say(id=reply_to, result={"stdin": "closed"})
        time.sleep(600)
    elif name == "progress":
        token = params["_meta"]["progressToken"]
        for done in range(3):
            say(method="notifications/progress", params={"progressToken": token, "progress": done, "total": 3})
        say(id=reply_to, result={"token": token})
    elif name == "ask":
        say(id="q", method="roots/list")
        say(id=reply_to, result={"answer": json.loads(sys.stdin.readline())})
    else:
        say(id=reply_to, result={"pid": os.getpid(), "method": message["method"], "params": params})
