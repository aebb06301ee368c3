"""Changes: who announces and who listens."""

from sluiceway.pipeline.model.changes import Changes
from sluiceway.pipeline.protocol.messages import Body, Notification


def test_listeners_are_told_of_changes_only() -> None:
    """A sink passes on everything it receives; progress is nobody's business here."""
    changes, told = Changes(), []
    stop = changes.listen(lambda sink, notification: told.append((sink, notification.method)))

    changes.announce("files", Notification("notifications/tools/list_changed"))
    changes.announce("files", Notification("notifications/resources/updated", {"uri": "a:b"}))
    changes.announce("files", Notification("notifications/progress"))
    stop()
    stop()
    changes.announce("files", Notification("notifications/tools/list_changed"))

    assert told == [("files", "notifications/tools/list_changed"), ("files", "notifications/resources/updated")]
    assert len(changes) == 0


def test_an_update_that_cannot_be_read_is_not_announced() -> None:
    """Listeners must not raise, so they may rely on params that pass the gate; of lists they read none."""
    changes, told = Changes(), []
    changes.listen(lambda _sink, notification: told.append(notification.method))

    changes.announce("files", Notification("notifications/resources/updated", Body(raw=b'{"uri":"a","uri":"b"}')))
    changes.announce("files", Notification("notifications/tools/list_changed", Body(raw=b'{"a":1,"a":2}')))

    assert told == ["notifications/tools/list_changed"]
