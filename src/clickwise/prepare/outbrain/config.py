"""The section `dataset` of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from clickwise.errors import nearest
from clickwise.prepare.outbrain.raw import FILES
from clickwise.prepare.outbrain.sets import SetName, feature_set
from clickwise.prepare.section import Section
from clickwise.recipe import require


@dataclass(frozen=True, kw_only=True)
class OutbrainConfig(Section):
    """The section `dataset` of a recipe for `name: outbrain`.

    folder           where the raw files lie
    files            raw table -> a file or pattern in that folder, where it has another name than Kaggle's
    feature_set      clickwise (ours) · as published: v1_spark, v1_nvtabular (26 features), multihot (29), profiles (54)
    test_share       of the displays before day `test_from_day`, chosen by a hash with `seed`
    test_from_day    from this day on (0 is 14 June) all displays are test
    test_displays    a file with the column display_id: those displays are the test, whatever their day
    folds            clickwise: click rates of a training display are those of the other folds; 0: of all training rows,
                     its own labels included, as published
    rate_weight      clickwise: a click rate is drawn towards the mean as by so many more views
    frequency_limit  clickwise: a value keeps an id of its own if it occurs at least so often in the training rows;
                     `frequency_limits` overrides it by feature
    profile_users    profiles: all · test: only users who have a test display have a profile (in their training rows
                     too), as published
    max_aspects      more categories, topics or entities of one document than this are an error
    shuffle          permute the training rows, by `seed`; test rows stand display by display
    max_bad_rows     so many lines that cannot be read are skipped and counted before preparation gives up
    input            with --with FOLDER: files of further raw rows, whole displays, which become the mapping `input`
    """

    folder: str
    files: dict[str, str] = field(default_factory=dict)
    feature_set: SetName = "clickwise"
    test_share: float = 0.2
    test_from_day: int = 11
    test_displays: str | None = None
    folds: int = 10
    rate_weight: float = 20.0
    frequency_limit: int = 10
    frequency_limits: dict[str, int] = field(default_factory=dict)
    profile_users: Literal["all", "test"] = "all"
    max_aspects: int = 1000
    shuffle: bool = True
    seed: int = 0
    max_bad_rows: int = 0
    input: list[str] = field(default=())

    def __post_init__(self) -> None:
        for name in self.files:
            require(name in FILES, "files", found=name, expected=f"raw tables out of {', '.join(FILES)}",
                    do=nearest(name, FILES))
        require(0 <= self.test_share < 1, "test_share", found=self.test_share, expected="0 or more, and less than 1")
        require(self.folds == 0 or 2 <= self.folds <= 1000, "folds", found=self.folds, expected="0, or from 2 to 1000")
        require(self.rate_weight > 0, "rate_weight", found=self.rate_weight, expected="more than 0")
        features = feature_set(self.feature_set)
        own = [*features.categories, *features.lists]
        for name in self.frequency_limits:
            require(name in own, "frequency_limits", found=name, expected=f"features out of {', '.join(own)}",
                    do=nearest(name, own))
        self.require_at_least(1, "max_aspects")
        self.require_at_least(0, "frequency_limit", "test_from_day", "seed", "max_bad_rows", "frequency_limits")
