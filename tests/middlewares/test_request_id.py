"""One id per exchange, on the exchange, in the log and in the response."""

from __future__ import annotations

import pytest
import structlog

from sluiceway.middlewares.request_id import RequestId
from sluiceway.pipeline.protocol.messages import Result


def _stage(bench, **options):
    return RequestId(RequestId.Config(**options), bench.context())


async def test_an_id_is_made_when_the_client_sends_none(bench, answer):
    """Without a header the context makes the id, and the reply carries it."""
    exchange = bench.exchange()

    await bench.service(answer, _stage(bench))(exchange)

    assert exchange.correlation_id == "id-1"
    assert exchange.reply_headers == {"x-request-id": "id-1"}


async def test_a_well_formed_id_of_the_client_is_kept(bench, answer):
    """The client's id is used as it is, and echoed."""
    exchange = bench.exchange(headers={"x-request-id": "0198c5b2-7c1e:run/7"})

    await bench.service(answer, _stage(bench))(exchange)

    assert exchange.correlation_id == "0198c5b2-7c1e:run/7"
    assert exchange.reply_headers == {"x-request-id": "0198c5b2-7c1e:run/7"}


@pytest.mark.parametrize("ill", ["", "a b", "a,b", "a\tb", "ä", "a\r\nset-cookie: x", '"a"', "a;b", "x" * 129, "a\n"])
async def test_an_ill_formed_id_is_replaced(bench, answer, ill):
    """What could break a header or a log line is not taken over, and the call goes on."""
    exchange = bench.exchange(headers={"x-request-id": ill})

    reply = await bench.service(answer, _stage(bench))(exchange)

    assert reply == Result({"answered": "tools/call"})
    assert exchange.correlation_id == "id-1"


async def test_max_length_bounds_the_clients_id(bench, answer):
    """An id of exactly `max_length` characters is kept, one more is too long."""
    fits, too_long = (bench.exchange(headers={"x-request-id": "x" * size}) for size in (8, 9))
    service = bench.service(answer, _stage(bench, max_length=8))

    await service(fits)
    await service(too_long)

    assert (fits.correlation_id, too_long.correlation_id) == ("x" * 8, "id-1")


async def test_accept_false_ignores_the_clients_id(bench, answer):
    """Where clients are not trusted, every id is ours."""
    exchange = bench.exchange(headers={"x-request-id": "theirs"})

    await bench.service(answer, _stage(bench, accept=False))(exchange)

    assert exchange.correlation_id == "id-1"


async def test_header_names_the_header_in_both_directions(bench, answer):
    """Another header is read and written, in lower case."""
    exchange = bench.exchange(headers={"x-correlation-id": "theirs", "x-request-id": "other"})

    await bench.service(answer, _stage(bench, header="X-Correlation-Id"))(exchange)

    assert exchange.reply_headers == {"x-correlation-id": "theirs"}


async def test_an_id_that_the_exchange_already_has_is_kept(bench, answer):
    """A second stage, in the chain of a sink, does not rename the exchange."""
    exchange = bench.exchange()
    second = _stage(bench)
    second.context.new_id = lambda: "another"

    await bench.service(answer, _stage(bench), second)(exchange)

    assert exchange.correlation_id == "id-1"
    assert exchange.reply_headers == {"x-request-id": "id-1"}


async def test_the_id_of_a_view_is_known_outside_of_it(bench, answer):
    """Auth stages hand on a view without credentials; whoever records the end has the exchange itself."""
    exchange = bench.exchange()

    await _stage(bench)(exchange.with_client(exchange.client), answer)

    assert (exchange.correlation_id, exchange.link.correlation_id) == ("", "id-1")


async def test_log_lines_inside_carry_the_id_and_later_ones_do_not(bench):
    """The id is bound while the inner chain runs, and unbound when it has ended, also with an error."""
    log = bench.context().log

    async def failing(exchange):
        log.info("inside")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await bench.service(failing, _stage(bench))(bench.exchange())
    log.info("outside")

    assert [line.get("correlation_id") for line in bench.lines()] == ["id-1", None]
    assert structlog.contextvars.get_contextvars() == {}
