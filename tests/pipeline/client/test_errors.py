"""What a conversation can end with."""

import pytest

from sluiceway.pipeline.client.errors import InvalidParams, McpError, error_of, wrong_arguments
from sluiceway.pipeline.protocol.messages import ErrorReply


def test_an_error_reply_becomes_an_exception_with_all_it_says():
    """Code, message, data and HTTP status; and back again."""
    error = error_of(ErrorReply(42900, "slow down", {"retry_after_ms": 5}, http_status=429))

    assert (42900, "slow down", {"retry_after_ms": 5}, 429) == (
        error.code,
        error.message,
        error.data,
        error.http_status,
    )
    assert not isinstance(error, InvalidParams)
    assert ErrorReply(42900, "slow down", {"retry_after_ms": 5}) == error.reply()


@pytest.mark.parametrize("message", ["Invalid params: no name", "invalid params", "name is missing"])
def test_wrong_params_have_a_class_and_a_text_of_their_own(message):
    """A test can look for `Invalid params` whatever the server's words are (S4-TI-03)."""
    error = error_of(ErrorReply(-32602, message))

    assert isinstance(error, InvalidParams)
    assert "invalid params" in str(error).lower()
    assert message in str(error)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"isError": True, "content": [{"type": "text", "text": "Invalid params: b is missing"}]}, "b is missing"),
        ({"isError": True, "content": [{"type": "text", "text": "division by zero"}]}, None),
        ({"isError": True, "content": ["odd", {"type": "image"}]}, None),
        ({"isError": True}, None),
        ({"content": [{"type": "text", "text": "Invalid params: not an error"}]}, None),
    ],
)
def test_a_result_that_says_invalid_params_is_told_from_other_failures(result, message):
    """Since 2025-11-25 wrong arguments are results (SEP-1303)."""
    error = wrong_arguments(result)

    assert (message is not None) is isinstance(error, McpError)
    assert message is None or message in str(error)
