"""States: what is known of a key besides its row, as data. `state` says what they have in common; one file each:

    lookup        attributes of a user, a video, …
    counts        impressions and clicks by one or several keys
    last_moment   when something was seen last
    event_log     what a user did, event by event
"""

from clickwise.encoding.states.counts import Counts
from clickwise.encoding.states.event_log import EventLog
from clickwise.encoding.states.last_moment import LastMoment
from clickwise.encoding.states.lookup import Lookup
from clickwise.encoding.states.state import Events, GoingOn, State

KINDS: dict[str, type[State]] = {kind.kind: kind for kind in (Lookup, Counts, LastMoment, EventLog)}

__all__ = ["KINDS", "Counts", "EventLog", "Events", "GoingOn", "LastMoment", "Lookup", "State"]
