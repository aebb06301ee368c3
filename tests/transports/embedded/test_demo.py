"""The quickstart's server."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
import trio

from sluiceway.pipeline.model.component import Context
from sluiceway.pipeline.model.session import Caller, Session
from sluiceway.pipeline.model.store import Store
from sluiceway.pipeline.protocol.messages import Result
from sluiceway.pipeline.stores.memory import MemoryStore
from sluiceway.transports.embedded.demo import build
from sluiceway.transports.embedded.demo_state import MAX_COUNTERS, MAX_PREFERENCES, Counters

MODERN = "2026-07-28"


@pytest.fixture
async def notes() -> Any:
    """A store for notes."""
    store: Store = MemoryStore(MemoryStore.Config(), Context(id="notes"))
    async with store.open():
        yield {"notes": store}


async def test_echo_and_add_answer_at_once(connect: Any, version: str) -> None:
    """Echo says that it processed, which method, and when (S0-CP-07)."""
    async with connect(build(), version=version) as peer:
        echo = (await peer.call("echo", raw=True, text="hi"))["structuredContent"]
        total = await peer.call("add", a=1, b=2.5)

    assert (True, "tools/call", "hi", "3.5") == (echo["processed"], echo["method"], echo["text"], total)
    assert timedelta(0) == datetime.fromisoformat(echo["timestamp"]).utcoffset()


async def test_countdown_takes_its_time_and_shows_it(connect: Any, version: str, autojump_clock: Any) -> None:
    """A step a second; the last report equals the total."""
    async with connect(build(), version=version) as peer:
        start = trio.current_time()
        result = await peer.result(
            "tools/call", {"name": "countdown", "arguments": {"seconds": 3}, "_meta": {"progressToken": "p"}}
        )

    assert ("Lift-off!", 3) == (result["content"][0]["text"], trio.current_time() - start)
    reports = [each for each in peer.heard if each.method == "notifications/progress"]
    assert [(1, 3, "2"), (2, 3, "1"), (3, 3, "0")] == [
        (each.params["progress"], each.params["total"], each.params["message"]) for each in reports
    ]


async def test_countdown_stops_when_it_is_cancelled(connect: Any, autojump_clock: Any) -> None:
    """Nothing is reported afterwards."""
    async with connect(build()) as peer:
        with trio.move_on_after(2.5):
            await peer.result(
                "tools/call", {"name": "countdown", "arguments": {"seconds": 60}, "_meta": {"progressToken": "p"}}
            )
        await trio.sleep(10)

    assert 2 == sum(each.method == "notifications/progress" for each in peer.heard)


async def test_counters_are_shared_and_start_anew_with_the_server(connect: Any) -> None:
    """100 increments at once make 100; an unknown counter is 0; reset says so (S1-SM-03)."""
    server = build()
    async with connect(server) as peer:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(lambda: peer.call("increment", name="hits"))
        said = [
            await peer.call("get_counter", name="hits"),
            await peer.call("get_counter", name="none"),
            await peer.call("reset_counter", name="hits"),
            await peer.call("get_counter", name="hits"),
            await peer.call("increment", name="hits", by=5),
        ]
    async with connect(server) as peer:
        said.append(await peer.call("get_counter", name="hits"))

    assert ["100", "0", "Counter 'hits' reset", "0", "5", "0"] == said


def test_counters_are_bounded() -> None:
    """The thousand-and-first name is refused; known ones go on."""
    counters = Counters()
    for number in range(MAX_COUNTERS):
        counters.increment(str(number), 1)

    assert 2 == counters.increment("0", 1)
    with pytest.raises(Exception, match="reset one first"):
        counters.increment("new", 1)


async def test_preferences_last_for_a_session(connect: Any) -> None:
    """Set, then get in the same session; another session does not find it (S1-SS-03, S1-SS-04)."""
    async with connect(build()) as peer:
        said = (await peer.call("set_preference", raw=True, name="color", value="blue"))["structuredContent"]
        found = await peer.call("get_preference", name="color")
        for number in range(MAX_PREFERENCES - 1):
            await peer.call("set_preference", name=str(number), value="")
        full = await peer.call("set_preference", raw=True, name="more", value="")
        peer.session = Session(id="s2", source="test")
        other = await peer.call("get_preference", raw=True, name="color")

    assert ({"message": "Set color: blue", "handle": None}, "blue") == (said, found)
    assert (True, "Preference not found") == (other["isError"], other["content"][0]["text"])
    assert full["isError"]


async def test_without_a_session_preferences_have_a_handle(connect: Any, notes: Any) -> None:
    """A modern client gets a handle and passes it on; an unknown handle is an error."""
    async with connect(build(), version=MODERN, stores=notes, store="notes") as peer:
        said = (await peer.call("set_preference", raw=True, name="color", value="blue"))["structuredContent"]
        handle = said["handle"]
        await peer.call("set_preference", name="size", value="m", handle=handle)
        found = [await peer.call("get_preference", name=name, handle=handle) for name in ("color", "size")]
        nothing = await peer.call("get_preference", raw=True, name="color")
        wrong = await peer.call("get_preference", raw=True, name="color", handle="wrong")

    assert ["blue", "m"] == found
    assert ["Preference not found", "nothing is known under this handle, or it has expired"] == [
        each["content"][0]["text"] for each in (nothing, wrong)
    ]


async def test_notes_are_kept_in_the_store_and_are_resources(connect: Any, version: str, notes: Any) -> None:
    """Write, list, read as a resource and in a prompt, suggest, delete; a subscriber hears of it."""
    async with connect(build(), version=version, stores=notes, store="notes") as peer:
        if peer.session is not None:
            await peer.result("resources/subscribe", {"uri": "note://todo"})
        link = (await peer.call("add_note", raw=True, title="todo", text="buy milk"))["content"][0]
        await peer.call("add_note", raw=True, title="other", text="x")
        titles = await peer.call("list_notes")
        read = (await peer.result("resources/read", {"uri": "note://todo"}))["contents"]
        prompt = await peer.result("prompts/get", {"name": "improve_note", "arguments": {"title": "todo"}})
        ref = {"type": "ref/resource", "uri": "note://{title}"}
        suggested = await peer.result("completion/complete", {"ref": ref, "argument": {"name": "title", "value": "t"}})
        deleted = await peer.call("delete_note", title="todo")
        again = await peer.call("delete_note", raw=True, title="todo")
        gone = await peer.error("resources/read", {"uri": "note://todo"})

    assert ("note://todo", '["other","todo"]') == (link["uri"], titles)
    assert [{"uri": "note://todo", "mimeType": "text/plain", "text": "buy milk"}] == read
    assert "buy milk" in prompt["messages"][0]["content"]["text"]
    assert ["todo"] == suggested["completion"]["values"]
    assert ("Deleted todo", True) == (deleted, again["isError"])
    assert {"uri": "note://todo"} == gone.data
    assert (2 if peer.session else 0) == len(peer.told)


async def test_notes_and_handles_are_their_principals(connect: Any, notes: Any) -> None:
    """Another subject, or one of the same name in another tenant, finds neither, whatever it is called."""
    async with connect(build(), version=MODERN, stores=notes, store="notes") as peer:
        peer.caller = Caller("ana", "acme")
        await peer.call("add_note", raw=True, title="todo", text="buy milk")
        said = (await peer.call("set_preference", raw=True, name="color", value="blue"))["structuredContent"]
        found = []
        for peer.caller in (Caller("ana", "acme"), Caller("ana", "globex"), Caller("ana"), Caller("acme/ana")):
            color = await peer.call("get_preference", raw=True, name="color", handle=said["handle"])
            found.append((await peer.call("list_notes"), color["content"][0]["text"]))

    unknown = "nothing is known under this handle, or it has expired"
    assert [('["todo"]', "blue"), *[("[]", unknown)] * 3] == found


async def test_notes_are_summarized_by_the_clients_model(connect: Any, notes: Any) -> None:
    """The client's model is asked with all notes; without notes nobody is."""
    said = {"role": "assistant", "content": {"type": "text", "text": "Milk."}, "model": "m"}
    async with connect(build(), stores=notes, store="notes", answers=(Result(said),)) as peer:
        empty = await peer.call("summarize_notes")
        await peer.call("add_note", raw=True, title="todo", text="buy milk")
        summary = await peer.call("summarize_notes")

    assert ("Milk.", 1) == (summary, len(peer.asked))
    assert "add_note" in empty
    assert "todo: buy milk" in peer.asked[0][1]["messages"][0]["content"]["text"]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            {"action": "accept", "content": {"name": "Bo", "guests": 2}},
            "A table inside at Chez Nous for 2 people, Bo. Enjoy!",
        ),
        (
            {"action": "accept", "content": {"name": "Bo", "guests": 1, "seating": "outside"}},
            "A table outside at Chez Nous for 1 person, Bo. Enjoy!",
        ),
        ({"action": "decline"}, "No table was booked: you chose to decline."),
    ],
)
async def test_booking_a_table_asks_the_user(connect: Any, answer: dict[str, Any], text: str) -> None:
    """A form for the user, in both eras."""
    async with connect(build(), answers=(Result(answer),)) as peer:
        legacy = await peer.call("book_table", restaurant="Chez Nous")
    async with connect(build(), version=MODERN) as peer:
        call = {"name": "book_table", "arguments": {"restaurant": "Chez Nous"}}
        first = await peer.result("tools/call", call)
        retry = {"inputResponses": {"booking": answer}, "requestState": first["requestState"]}
        modern = (await peer.result("tools/call", {**call, **retry}))["content"][0]["text"]

    assert [text, text] == [legacy, modern]


async def test_the_tour_can_be_read_and_prompted(connect: Any, version: str) -> None:
    """The welcome, what the gateway knows of the client, a greeting and its styles."""
    async with connect(build(), version=version) as peer:
        welcome = (await peer.result("resources/read", {"uri": "demo://welcome"}))["contents"][0]
        you = (await peer.result("resources/read", {"uri": "demo://you"}))["contents"][0]["text"]
        greet = await peer.result("prompts/get", {"name": "greet", "arguments": {"name": "Bo", "style": "pirate"}})
        ref = {"type": "ref/prompt", "name": "greet"}
        styles = await peer.result("completion/complete", {"ref": ref, "argument": {"name": "style", "value": "f"}})

    assert "text/markdown" == welcome["mimeType"]
    assert f'"version":"{version}"' in you
    assert "Greet Bo in one short sentence. Style: pirate." == greet["messages"][0]["content"]["text"]
    assert ["formal", "friendly"] == styles["completion"]["values"]


async def test_every_listing_of_the_demo_is_as_published(connect: Any, version: str) -> None:
    """Tools, resources, templates and prompts fit the schemas of both eras."""
    async with connect(build(), version=version) as peer:
        sizes = [
            len((await peer.result(method))[member])
            for method, member in (
                ("tools/list", "tools"), ("resources/list", "resources"), ("prompts/list", "prompts"),
                ("resources/templates/list", "resourceTemplates"),
            )
        ]  # fmt: skip

    assert [13, 2, 2, 1] == sizes
