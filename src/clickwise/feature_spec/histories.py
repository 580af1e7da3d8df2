"""What a Feature Spec says of histories: lists of events in the channels history and negative_history, event logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from clickwise.errors import SpecError, nearest
from clickwise.feature_spec.feature import AUTO, Chunk, Feature

if TYPE_CHECKING:
    from clickwise.feature_spec import FeatureSpec

NEGATIVES = ("uniform", "popularity", "compat", "stored")  # `stored`: the log has them beside its events
TIME_GAP = "time_gap"  # a further key of a feature of the history
LIST_OF = "list_of"  # … of a feature that is a further value of the one named: an item's second category


def is_time_gap(feature: Feature) -> bool:
    """Whether the ids of this feature are worked out from the times of event and sample."""
    return TIME_GAP in feature.extra


def first_of_list(feature: Feature) -> str:
    """The name of the feature whose list of values this one is of; its own where it is of none."""
    return feature.extra.get(LIST_OF, feature.name)


def gap_ids(gap_BL: np.ndarray, unit: int, cardinality: int) -> np.ndarray:
    """1 for gaps below one unit, 2 below two, 3 below four, and so on by doubling; the last id takes all that are
    larger."""
    return np.minimum(1 + np.frexp(np.maximum(gap_BL, 0) // unit)[1], cardinality - 1)


def history_length(spec: FeatureSpec) -> int | None:
    """Events in the window of a history, as the Feature Spec says; None where it has no history."""
    features = spec.channel("history")
    if not features:
        return None
    return features[0].dimensions[0] if features[0].dimensions else features[0].max_hotness


def stored_event_features(spec: FeatureSpec, chunk: Chunk) -> tuple[str, ...]:
    """The features of an `events` chunk that have a file in its log; the others are drawn, or taken from these."""
    def of(channel: str) -> list[str]:
        return [name for name in spec.channels.get(channel, ()) if name in chunk.features]

    return (*of("history"), *(of("negative_history") if chunk.options.get("negatives") == "stored" else ()))


def check_histories(spec: FeatureSpec) -> None:
    """Raises SpecError where the features of a history cannot stand side by side, or with those of their negatives."""
    where = f"{spec.path}: channel_spec"
    history, negative = spec.channel("history"), spec.channel("negative_history")
    for feature in (*history, *negative):
        if len(feature.dimensions or ()) > 1:
            raise SpecError(f"{spec.path}: feature_spec.{feature.name}.dimensions", found=str(list(feature.dimensions)),
                            expected="one number, the events of a history: [100]")
        if _shape(feature) != _shape((*history, *negative)[0]):
            raise SpecError(f"{spec.path}: feature_spec.{feature.name}", found=_described(feature),
                            expected=f"{_described((*history, *negative)[0])}, as of {(*history, *negative)[0].name!r}",
                            do="the features of a history are of the same events")
    kept = tuple(feature for feature in history if not is_time_gap(feature))
    if history[: len(kept)] != kept:
        raise SpecError(f"{where}.history", found="a time gap before other features", expected="time gaps last")
    for feature in history[len(kept):]:
        unit = feature.extra[TIME_GAP]
        if isinstance(unit, bool) or not isinstance(unit, int) or unit < 1:
            raise SpecError(f"{spec.path}: feature_spec.{feature.name}.{TIME_GAP}", found=repr(unit),
                            expected="the unit of the gap in the unit of the times, an integer of at least 1")
    for channel in ("target_item", "history", "negative_history"):
        _check_lists(spec, channel)
    # What is known of a past event only (its outcome, say) has no twin in the target, and needs none here.
    twins = kept[: len(spec.channel("target_item")) or None]
    if negative and not len(twins) <= len(negative) <= len(kept):
        raise SpecError(f"{where}.negative_history", found=f"{len(negative)} features: {_names(negative)}",
                        expected=f"a twin for each of {len(twins)} features of the channel history, in their order: "
                        + (_names(twins) or "none"), do="add the missing twins, or remove the channel negative_history")
    for feature, twin in zip(kept, negative, strict=False):
        if AUTO not in (feature.cardinality, twin.cardinality) and feature.cardinality != twin.cardinality:
            raise SpecError(f"{spec.path}: feature_spec.{twin.name}.cardinality", found=str(twin.cardinality),
                            expected=f"{feature.cardinality}, as of its twin {feature.name!r} in the history")


def _check_lists(spec: FeatureSpec, channel: str) -> None:
    """Raises SpecError where further values are of no feature before them, of other ids, or where those of the history
    do not stand where those of the target do."""
    features, targets = spec.channel(channel), spec.channel("target_item")
    names, target_names = ([feature.name for feature in held] for held in (features, targets))
    for index, feature in enumerate(features):
        first, where = first_of_list(feature), f"{spec.path}: feature_spec.{feature.name}.{LIST_OF}"
        if LIST_OF in feature.extra:
            before = {other.name: other for other in features[:index]
                      if LIST_OF not in other.extra and not is_time_gap(other)}
            if first not in before or is_time_gap(feature):
                raise SpecError(where, found=repr(first), do=nearest(first, before),
                                expected=f"a feature of the channel {channel} before it, of whose list it is")
            if before[first].cardinality != feature.cardinality:
                raise SpecError(where, found=f"{feature.cardinality} ids",
                                expected=f"{before[first].cardinality}, as {first!r} has: they share its table")
        if index < len(targets) and not is_time_gap(feature) \
                and names.index(first) != target_names.index(first_of_list(targets[index])):
            raise SpecError(where, found=f"{first!r}, and for {targets[index].name!r} in target_item "
                            f"{first_of_list(targets[index])!r}", expected="the same lists in both, position by place")


def _shape(feature: Feature) -> tuple:
    return feature.dimensions or (), feature.max_hotness or 0


def _described(feature: Feature) -> str:
    return f"dimensions {list(feature.dimensions)}" if feature.dimensions else f"max_hotness {feature.max_hotness}" \
        if feature.is_multi_hot else "neither dimensions nor max_hotness"


def _names(features: tuple[Feature, ...]) -> str:
    return ", ".join(feature.name for feature in features)


def check_events(spec: FeatureSpec, where: str, chunk: Chunk) -> None:
    """Raises SpecError where an `events` chunk cannot be what it says."""
    channels = {channel: spec.channels.get(channel, ()) for channel in ("history", "negative_history", "target_item")}
    of = {name: channel for channel, names in channels.items() for name in names}
    for name in chunk.features:
        if name not in of:
            raise SpecError(f"{where}.features", found=f"the feature {name!r}, which is of no channel of events",
                            expected=f"features of {', '.join(channels)}")
    for channel, names in channels.items():
        held = [name for name in names if name in chunk.features]
        if len(held) != len(names) and (held or channel == "history"):
            missing = next(name for name in names if name not in held)
            raise SpecError(f"{where}.features", found=f"no feature {missing!r} of the channel {channel!r}",
                            expected=f"all of {', '.join(names)}")
    if not channels["history"] or not all(feature.dimensions for feature in spec.channel("history")):
        raise SpecError(f"{where}.features", found="a history without dimensions", do="dimensions: [100], for example",
                        expected="features of the channel history with dimensions, the events of a window")
    items = [feature for feature in spec.channel("history") if not is_time_gap(feature)]
    if channels["target_item"] and channels["target_item"][0] in chunk.features:
        _check_made_targets(spec, where, items)
    for key, value in chunk.options.items():
        if key != "negatives" or value not in NEGATIVES:
            raise SpecError(f"{where}.{key}", found=repr(value), expected=", ".join(NEGATIVES),
                            do=nearest(value, NEGATIVES))
    stored = stored_event_features(spec, chunk)
    counts = [3 + len(stored), *([4 + len(stored)] if len(items) < len(channels["history"]) else [])]
    if len(chunk.files) not in counts:
        raise SpecError(f"{where}.files", found=f"{len(chunk.files)} files",
                        expected=f"{' or '.join(map(str, counts))}: user, position, offsets, one for each of "
                                 f"{', '.join(stored)}" + (", then perhaps the time" if len(counts) > 1 else ""))


def _check_made_targets(spec: FeatureSpec, where: str, items: list[Feature]) -> None:
    targets = spec.channel("target_item")
    if len(targets) > len(items) or any(a.cardinality != b.cardinality for a, b in zip(targets, items, strict=False)):
        raise SpecError(f"{where}.features", found=f"the target {_names(targets)}",
                        expected=f"the first of {_names(tuple(items))}, of the same cardinalities",
                        do="give the target a chunk of its own, if it is more than the event to come")
    if not spec.channels.get("label"):
        raise SpecError(f"{where}.features", found="targets without a label", do="name it in channel_spec.label",
                        expected="a label, which tells the event that came from one that is drawn")
