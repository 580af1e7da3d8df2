"""What a recipe leaves out of a Feature Spec: inputs, by the name of a feature or of a whole channel."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clickwise.errors import RecipeError, nearest
from clickwise.feature_spec.feature import ID_CHANNELS
from clickwise.feature_spec.histories import is_time_gap

if TYPE_CHECKING:
    from clickwise.feature_spec import FeatureSpec

INPUTS = ("numerical", *ID_CHANNELS)
OF_EVENTS = ("target_item", "history", "negative_history")
WHERE = "recipe.data.ignore"


def without(spec: FeatureSpec, names: Sequence[str]) -> FeatureSpec:
    """The Feature Spec without these inputs, each a feature or a channel (all its features), and without mappings,
    whose files hold them; without a history there is no negative one. Raises RecipeError for a name that is no input,
    and where a history would lose what it needs.
    """
    inputs = {channel: spec.channels[channel] for channel in INPUTS if spec.channels.get(channel)}
    known = [*inputs, *(name for held in inputs.values() for name in held)]
    if "history" in inputs:
        known.append("negative_history")  # further rows have none
    for name in names:
        if name not in known:
            of = next((channel for channel, held in spec.channels.items() if name == channel or name in held), None)
            raise RecipeError(WHERE, found=repr(name) if of is None else f"{name!r}, of the channel {of}",
                              expected=f"inputs: a channel ({', '.join(inputs)}) or a feature of one",
                              do=nearest(name, known) if of is None else
                              "no model reads it: leave it out of data.ignore")
    kept = {channel: tuple(name for name in held if name not in names and channel not in names)
            for channel, held in inputs.items()}
    if not kept.get("history"):
        kept["negative_history"] = ()  # it is beside a history
    _check_events(spec, kept)
    channels = {channel: kept.get(channel, held) for channel, held in spec.channels.items() if kept.get(channel, held)}
    held = {name for names_ in channels.values() for name in names_}
    features = {name: feature for name, feature in spec.features.items() if name in held}
    return dataclasses.replace(spec, features=features, channels=channels, mappings={})


def _check_events(spec: FeatureSpec, kept: dict[str, tuple[str, ...]]) -> None:
    """Raises RecipeError unless a history keeps its first feature, and what stands at one place in target, history and
    negatives is kept or left out together, in those of them of which anything is kept."""
    history = spec.channels.get("history", ())
    if kept.get("history") and history[0] not in kept["history"]:
        raise RecipeError(WHERE, found=repr(history[0]), do="or leave out the channel history",
                          expected="a history with its first feature, which tells events from padding")
    for index in range(sum(not is_time_gap(spec.features[name]) for name in history)):
        twins = [spec.channels[channel][index] for channel in OF_EVENTS
                 if kept.get(channel) and len(spec.channels[channel]) > index]
        gone = [twin for twin in twins if not any(twin in kept[channel] for channel in OF_EVENTS if channel in kept)]
        if gone and len(gone) < len(twins):
            stays = next(twin for twin in twins if twin not in gone)
            raise RecipeError(WHERE, found=f"{', '.join(gone)} without {stays}",
                              expected=f"all of {', '.join(twins)}, or none: they share a table, place by place",
                              do=f"data.ignore=[{', '.join(twins)}]")
