"""Small reviews and metadata in Amazon's format, and what their preparation should give, worked out in plain Python."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from pathlib import Path

DAY = 86400


def random_reviews(users: int = 7, items: int = 12, seed: int = 0) -> list[tuple[str, str, int]]:
    """(user, item, time): each user has up to 12 on few days, in no order; some stand twice."""
    dice = random.Random(seed)
    rows = [(f"U{user}", f"{dice.randrange(items):010d}", dice.randrange(5) * DAY)
            for user in range(users) for _ in range(1 + dice.randrange(12))]
    rows += [("READER", f"{item:010d}", (item % 4) * DAY) for item in range(items)]
    rows += dice.sample(rows, 3)
    dice.shuffle(rows)
    return rows


def with_unseen_items() -> list[tuple[str, str, int]]:
    """Reviews in which the items that half of the readers had last, and last but one, occur nowhere else."""
    dice = random.Random(4)
    rows = [(f"U{user}", f"{dice.randrange(1, 40):010d}", day * DAY) for user in range(12) for day in range(8)]
    return [*rows, *((f"U{user}", f"9{user:08d}{last}", (20 + last) * DAY)
                     for user in range(0, 12, 2) for last in range(2))]


def review(user: str, item: str, time: int) -> str:
    return json.dumps({"reviewerID": user, "asin": item, "reviewerName": "A \"B\"", "helpful": [1, 2],
                       "reviewText": "two\nlines, {\"asin\": \"x\"}", "overall": 4.0, "unixReviewTime": time,
                       "reviewTime": "01 1, 1970"})


def product(item: str, categories: object = None, **more: object) -> str:
    """A line of metadata as Python writes it."""
    return repr({"asin": item, **({} if categories is None else {"categories": categories}), **more})


def products(items: int = 12) -> list[str]:
    """Item 0 has no line, 1 no categories, 2 an empty path; 3 stands twice; 4 has quotes about it."""
    lines = [product("0000000001", title="It's \"quoted\" \\ 'categories': [['Books', 'Trap']]"),
             product("0000000002", [[]]), product("0000000003", [["Books", "Three"], ["Books", "Other"]]),
             product("0000000003", [["Books", "Later"]]),
             product("0000000004", [["Books", "Children's"]], title='say "hi"', related={"bought": ["0000000009"]})]
    lines += [product(f"{item:010d}", [["Books", f"Kind {item % 3}"]], price=1.5, brand="") for item in range(5, items)]
    return [*lines, product("9999999999", [["Never reviewed"]])]


CATEGORY = {"0000000000": "no_category", "0000000001": "no_category", "0000000002": "no_category",
            "0000000003": "Three", "0000000004": "Children's",
            **{f"{item:010d}": f"Kind {item % 3}" for item in range(5, 12)}}


def write_lines(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") if path.suffix == ".gz" else open(path, "w") as file:
        file.write("\n".join(lines) + "\n")
    return path


def ids(values: list) -> dict:
    """Value -> id by descending count, ties by value."""
    counts = Counter(values)
    return {value: index for index, value in enumerate(sorted(counts, key=lambda v: (-counts[v], v)), 1)}


def expected(reviews: list[tuple[str, str, int]], *, min_events: int = 3, held_out: int = 2, repeats: str = "drop",
             fit_on: str = "train") -> tuple[dict, list, list, list]:
    """User ids, and of every user by id: items, categories (as ids) and times in order."""
    rows = sorted(set(reviews)) if repeats == "drop" else reviews
    counts = Counter(user for user, _, _ in rows)
    users = ids([user for user, _, _ in rows if counts[user] >= min_events])
    logs = {user: sorted((time, item) for u, item, time in rows if u == user) for user in users}
    fitted = [item for log in logs.values() for _, item in (log[:-held_out] if fit_on == "train" else log)]
    item_ids, category_ids = ids(fitted), ids([CATEGORY[item] for item in fitted])
    return users, [[item_ids.get(item, 0) for _, item in logs[user]] for user in users], \
        [[category_ids.get(CATEGORY[item], 0) for _, item in logs[user]] for user in users], \
        [[time for time, _ in logs[user]] for user in users]
