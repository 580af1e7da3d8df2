"""States: what is known of a key besides its row, as data. `state` says what they have in common; one file each:

    lookup        attributes of a user, a video, …; list_lookup, lists
    counts        impressions and clicks by one or several keys
    last_moment   when something was seen last
    event_log     what a user did, event by event
    group_size    how many rows of a request have the same key
"""

from clickwise.encoding.states.counts import Counts
from clickwise.encoding.states.event_log import EventLog
from clickwise.encoding.states.group_size import GroupSize, WholeRequest
from clickwise.encoding.states.last_moment import LastMoment
from clickwise.encoding.states.lookup import ListLookup, Lookup
from clickwise.encoding.states.state import Events, GoingOn, State

KINDS: dict[str, type[State]] = {kind.kind: kind for kind in (Lookup, ListLookup, Counts, LastMoment, EventLog,
                                                             GroupSize)}

__all__ = ["KINDS", "Counts", "EventLog", "Events", "GoingOn", "GroupSize", "LastMoment", "ListLookup", "Lookup",
           "State", "WholeRequest"]
