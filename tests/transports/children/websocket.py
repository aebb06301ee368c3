"""A server on a WebSocket that answers every request with its method; prints its url, and ends with its input."""

import json
import sys

import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket


async def serve(request: WebSocketRequest) -> None:
    """Serve one connection."""
    socket = await request.accept(subprotocol="mcp")
    try:
        while True:
            message = json.loads(await socket.get_message())
            if "method" in message and "id" in message:
                result = {"method": message["method"], "protocolVersion": "2025-11-25"}
                await socket.send_message(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}))
    except ConnectionClosed:
        pass


async def main() -> None:
    """Serve until nobody holds the other end of our input."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, serve, "127.0.0.1", 0, None)
        print(f"ws://127.0.0.1:{server.port}/mcp", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


trio.run(main)
