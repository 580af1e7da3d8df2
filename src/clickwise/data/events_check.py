"""A log of events and the positions in it, checked against the Feature Spec."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clickwise.data.arrays import RaggedArray
from clickwise.data.check_values import STEP, check_ids, check_offsets, in_steps
from clickwise.data.events import Samples
from clickwise.errors import SpecError
from clickwise.feature_spec import Chunk, FeatureSpec, is_time_gap, stored_event_features


def check_events(spec: FeatureSpec, chunk: Chunk, samples: Samples, label: np.ndarray | RaggedArray | None) -> None:
    """Raises SpecError for the first id, user, position or time that cannot be. `label` is that of the rows, where it
    tells which targets the log holds."""
    log, stored = samples.log, stored_event_features(spec, chunk)
    files = dict(zip(("user", "position", "offsets", *stored, "time"), (spec.folder / name for name in chunk.files),
                     strict=False))
    check_offsets(log.offsets, files["offsets"], "user")
    gaps = [name for name in stored if is_time_gap(spec.features[name])]
    for name in stored:
        if name not in gaps:
            check_ids(log.features[name], spec.features[name], files[name])
    makes_items = len(stored) < len(chunk.features)
    if makes_items and not any(part.any() for _, part in in_steps(log.features[stored[0]])):
        raise SpecError(files[stored[0]], found="no event with a known item (an id above 0)",
                        expected="at least one, among which negatives can be drawn")
    makes_targets = any(name in spec.channels.get("target_item", ()) for name in chunk.features)
    _check_positions(samples, files, label if makes_targets else None, bool(gaps) and samples.time is None)
    for name in gaps:
        _check_times(samples, log.features[name], files[name], files.get("time"))


def _check_positions(samples: Samples, files: dict[str, Path], label: np.ndarray | None, all_come: bool) -> None:
    counts = samples.log.counts()
    for start, user in in_steps(samples.user):
        if user.min() < 0 or user.max() >= len(counts):
            row = int(np.flatnonzero((user < 0) | (user >= len(counts)))[0])
            raise SpecError(f"{files['user']}, row {start + row}", found=f"the user {user[row]}",
                            expected=f"0 … {len(counts) - 1}, the users of {files['offsets'].name}")
        position, count = samples.position[start : start + len(user)], counts[user]
        comes = np.full(len(user), all_come) if label is None else np.asarray(label[start : start + len(user)]) != 0
        wrong = (position < 0) | (position > count - comes)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            is_target = bool(comes[row])
            raise SpecError(f"{files['position']}, row {start + row}", found=f"the position {position[row]}",
                            expected=f"0 … {count[row] - is_target}, as user {user[row]} has {count[row]} events"
                                     + (" and the event at the position is the target" if is_target else ""))


def _check_times(samples: Samples, time: np.ndarray, path: Path, sample_path: Path | None) -> None:
    """Raises SpecError where a user's times go backwards, or a sample is earlier than an event before it."""
    starts = samples.log.offsets[1:-1]
    for start in range(0, len(time) - 1, STEP):
        step = np.diff(time[start : start + STEP + 1])
        first, end = np.searchsorted(starts, (start + 1, start + len(step) + 1))
        step[np.asarray(starts[first:end]) - start - 1] = 0  # between two users
        if step.min() < 0:
            event = start + int(np.flatnonzero(step < 0)[0]) + 1
            user = int(np.searchsorted(samples.log.offsets, event, side="right")) - 1
            raise SpecError(f"{path}, event {event} (user {user})", do="sort them",
                            found=f"the time {time[event]} after {time[event - 1]}",
                            expected="events of a user in the order of time")
    if samples.time is None:
        return
    for start, when in in_steps(samples.time):
        rows = slice(start, start + len(when))
        end = samples.log.offsets[samples.user[rows]] + samples.position[rows]
        wrong = (samples.position[rows] > 0) & (time[np.maximum(end - 1, 0)] > when)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise SpecError(f"{sample_path}, row {start + row}", do="count in position only the events before it",
                            found=f"the time {when[row]}, before the last of its history ({time[end[row] - 1]})",
                            expected="a history that is over before the sample")
