"""What is changed in a message on its way, byte for byte."""

import pytest

from sluiceway.pipeline.protocol.codec import decode_message
from sluiceway.pipeline.protocol.messages import Notification, Request
from sluiceway.transports.readdress import readdress, with_subscription, with_token


@pytest.mark.parametrize(
    ("received", "sent"),
    [
        (
            b'{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"x", "args":{"n":1.50,"\\u0061":0}}}',
            b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"x", "args":{"n":1.50,"\\u0061":0}}}',
        ),
        (b'{"id": 1, "jsonrpc": "2.0", "method": "ping"}', b'{"id":7,"jsonrpc":"2.0","method":"ping"}'),
        (
            b'{"jsonrpc":"2.0","id":1,"method":"x","new":[ 1E3 ],"params":{"_meta":{"a":1e2,"progressToken":"t"}}}',
            b'{"jsonrpc":"2.0","id":7,"method":"x","new":[ 1E3 ],"params":{"_meta":{"a":1e2,"progressToken":7}}}',
        ),
        (
            b'{"jsonrpc":"2.0","id":1,\r\n"method":"x",\n"params":{}}',
            b'{"jsonrpc":"2.0","id":7,  "method":"x", "params":{}}',
        ),
        (
            b'{"method":"x","params":{"jsonrpc":"2.0","id":1},"jsonrpc":"2.0","id":1}',
            b'{"method":"x","params":{"jsonrpc":"2.0","id":1},"jsonrpc":"2.0","id":7}',
        ),
        (b'{"jsonrpc":"2.0","id":10,"method":"x"}', b'{"jsonrpc":"2.0","id":7,"method":"x"}'),
        (b'{"jsonrpc":"2.0","id":"\\u0061","method":"x"}', b'{"jsonrpc":"2.0","id":7,"method":"x"}'),
        (b'{"jsonrpc":"2.0","id":1 ,"method":"x"}', b'{"jsonrpc":"2.0","id":7,"method":"x"}'),
        (
            b'{"method":"x","jsonrpc":"2.0","params":{"a":",\\"jsonrpc\\":\\"2.0\\",\\"id\\":1}"},"id":1}',
            b'{"method":"x","jsonrpc":"2.0","params":{"a":",\\"jsonrpc\\":\\"2.0\\",\\"id\\":1}"},"id":7}',
        ),
    ],
)
def test_a_received_request_keeps_every_byte_but_its_id_and_token(received, sent):
    """Members nobody knows, spellings of numbers and escapes pass as they came, on one line."""
    request = decode_message(received)

    assert isinstance(request, Request)
    assert sent == readdress(request, 7)


@pytest.mark.parametrize(
    ("params", "sent"),
    [
        ({}, b'{"jsonrpc":"2.0","id":7,"method":"x"}'),
        ({"_meta": {}}, b'{"jsonrpc":"2.0","id":7,"method":"x","params":{"_meta":{}}}'),
        (
            {"a": 1, "_meta": {"progressToken": 0, "b": 2}},
            b'{"jsonrpc":"2.0","id":7,"method":"x","params":{"a":1,"_meta":{"progressToken":7,"b":2}}}',
        ),
    ],
)
def test_a_request_that_a_stage_changed_is_written_anew(params, sent):
    """Without the received bytes the params are what counts; no token is invented, and a token of 0 is one."""
    assert sent == readdress(Request("a", "x", params), 7)


def test_tokens_and_subscriptions_are_replaced_and_all_else_kept():
    """Both keep their neighbours."""
    progress = Notification("notifications/progress", {"progressToken": 7, "progress": 1, "new": True})

    assert with_token(progress, "t") == Notification(
        "notifications/progress", {"progressToken": "t", "progress": 1, "new": True}
    )
    assert with_subscription({"uri": "a", "_meta": {"b": 1}}, 3) == {
        "uri": "a",
        "_meta": {"b": 1, "io.modelcontextprotocol/subscriptionId": 3},
    }
