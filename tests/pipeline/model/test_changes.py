"""Changes: who announces and who listens."""

from sluiceway.pipeline.model.changes import Changes
from sluiceway.pipeline.protocol.messages import Notification


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
