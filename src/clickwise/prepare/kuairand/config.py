"""The section `dataset` of a recipe."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Literal

from clickwise.errors import nearest
from clickwise.prepare.kuairand.history import HistoryConfig
from clickwise.prepare.kuairand.log import DISPLAY, ITEM, LABEL, TAGS, USER_CATEGORICAL, VIDEO_CATEGORICAL
from clickwise.prepare.kuairand.numbers import NUMERICAL
from clickwise.prepare.section import Section
from clickwise.recipe import require

REQUEST_CATEGORICAL = ("user_id", "video_id", "tab", "hour", "day_of_week")
NOT_BY_DEFAULT = ("user_tab_impressions", "video_tab_impressions", "user_tag_impressions", "user_tag_click_rate",
                  "user_author_impressions", "user_author_click_rate")
CATEGORICAL = (*REQUEST_CATEGORICAL, *USER_CATEGORICAL, *VIDEO_CATEGORICAL, TAGS)


@dataclass(frozen=True, kw_only=True)
class KuaiRandConfig(Section):
    """The section `dataset` of a recipe for `name: kuairand`.

    folder              where the raw files lie; null: the sample that is shipped
    log, users, videos  files or patterns in that folder, .csv, .csv.gz or .parquet
    train_from, validation_from, test_from   the first day of each mapping (yyyymmdd); train_from null: all there is,
                        validation_from null: no validation
    train_on_validation   the training rows end where the test begins, validation days included
    numerical, categorical   the features, in their order, out of NUMERICAL and CATEGORICAL
    frequency_limit     a value keeps an id of its own if it occurs at least so often in the training rows;
                        `frequency_limits` overrides it by feature
    count_until         training: counts and click rates are those of the days before the impression's own, and stand
                        still from the first test day on · earlier_days: they are renewed in the test period too, as
                        a job of every night would · earlier_moments: they are those of all impressions before, as
                        counters in a stream would be
    moments_until       impression: seconds_since_last and earlier_today are of all impressions before, in the test
                        period too · training: they stand still from the first test day on, so that rows can be scored
                        without a log of what else the user was shown on that day
    rate_weight         a click rate is drawn towards the mean as by so many more impressions
    shuffle             permute the training rows, by `seed`; the others stay in the order of time
    max_bad_rows        so many lines that cannot be read are skipped and counted before preparation gives up
    input               with --with FOLDER: files of further raw rows, which become the mapping `input`; where states go
                        on, a log with labels
    history             null, or what a user watched and clicked before, as a log of events beside the columns
    """

    folder: str | None = None
    log: list[str] = field(default=("log_standard_*",))
    users: list[str] = field(default=("user_features_*",))
    videos: list[str] = field(default=("video_features_basic_*",))
    train_from: int | None = None
    validation_from: int | None = 20220430
    test_from: int = 20220501
    train_on_validation: bool = False
    numerical: list[str] = field(default=tuple(name for name in NUMERICAL if name not in NOT_BY_DEFAULT))
    categorical: list[str] = field(default=(
        "tab", "hour", "video_type", "upload_type", "music_type", "user_active_degree", "is_video_author",
        *(f"onehot_feat{i}" for i in (0, 1, 4, 6, 9, 10, 11)), TAGS))
    frequency_limit: int = 10
    frequency_limits: dict[str, int] = field(default_factory=dict)
    count_until: Literal["training", "earlier_days", "earlier_moments"] = "training"
    moments_until: Literal["impression", "training"] = "impression"
    rate_weight: float = 10.0
    shuffle: bool = True
    seed: int = 0
    max_bad_rows: int = 0
    input: list[str] = field(default=())
    history: HistoryConfig | None = None

    def __post_init__(self) -> None:
        days = {key: getattr(self, key) for key in ("train_from", "validation_from", "test_from")
                if getattr(self, key) is not None}
        for key, day in days.items():
            require(_is_day(day), key, found=day, expected="a day as yyyymmdd")
        require(list(days.values()) == sorted(set(days.values())), "test_from", found=self.test_from,
                expected="train_from < validation_from < test_from")
        for key, known in (("numerical", NUMERICAL), ("categorical", CATEGORICAL)):
            names = getattr(self, key)
            for name in names:
                require(name in known, key, found=name, expected=f"features out of {', '.join(known)}",
                        do=nearest(name, known))
            require(len(set(names)) == len(names), key, found=names, expected="every feature once")
        require(bool(self.numerical or self.categorical), "categorical", found=self.categorical,
                expected="at least one feature")
        for name in self.frequency_limits:
            require(name in self.categorical, "frequency_limits", found=name, expected="features of categorical",
                    do=nearest(name, self.categorical))
        for key in ("log", "users", "videos"):
            require(bool(getattr(self, key)), key, found=getattr(self, key), expected="at least one file")
        require(self.rate_weight > 0, "rate_weight", found=self.rate_weight, expected="more than 0")
        self.require_at_least(0, "frequency_limit", "seed", "max_bad_rows", "frequency_limits")

    @property
    def channels(self) -> dict[str, tuple[str, ...]]:
        parts = {"numerical": self.numerical, "categorical": self.categorical}
        return {name: tuple(part) for name, part in parts.items() if part} \
            | {"display": (DISPLAY,), "item": (ITEM,), "label": (LABEL,)} \
            | ({} if self.history is None else {"target_item": tuple(self.history.items),
                                                "log_places": self.history.columns})


def _is_day(day: int) -> bool:
    try:
        return bool(datetime.date(day // 10000, day // 100 % 100, day % 100))
    except (ValueError, OverflowError):
        return False
