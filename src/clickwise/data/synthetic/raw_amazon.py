"""Raw reviews and metadata in the format of Amazon's product data, of readers with interests that drift."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from clickwise.data.synthetic.generate import chunk_generator
from clickwise.data.synthetic.power_law import power_law
from clickwise.data.synthetic.raw_criteo import hidden_hash
from clickwise.data.synthetic.signal import hidden_bits
from clickwise.data.synthetic.write import Figures, checked, in_order, new_folder
from clickwise.progress import Progress

USERS_AT_ONCE, ITEMS_AT_ONCE = 1 << 11, 1 << 14
DAY = 86400
FIRST_DAY, LAST_DAY = 9617, 16274  # May 1996 to July 2014, in days since 1970
READERS = 0.4  # share of users with 20 events and more
INTERESTS = 3  # categories that a user comes back to
STAYS, SEQUEL, EXPLORES = 0.8, 0.45, 0.06
MOST_EVENTS = 600
ALPHA = 1.05  # of the power laws of items and categories
REPEATED = 0.002  # reviews that stand twice in the file
WORDS = ("The", "Winter", "of", "a", "Stranger's", "Garden", "\"Quoted\"", "Night", "Café", "House", "and", "Bones",
         "Last", "River", "back\\slash", "Sea", "Book", "II")


def synthesize_raw_amazon(out_folder: str | Path, users: int, seed: int = 1, *, threads: int | None = None) -> Figures:
    """Writes reviews_Books.json and meta_Books.json; returns how many users, items, categories and reviews they have.

    Every user has some interests (categories). Most events stay within the interest of the moment, and within an
    interest the next item is often the sequel of the last one: what a user will like follows from the history, and
    from its order. 2 of 5 users have 20 events or more, 59 in the mean. The quirks of the real files are there:
    times at midnight, lines in no order of time, escapes and missing names; metadata as Python literals with either
    kind of quotes, products without categories, with several paths, never reviewed, or missing; some reviews twice.
    Users are written one part after another: memory does not grow with their number. The folder appears when all of it
    is there; DataError where it exists already, or the disk is full. `threads` change no byte.
    """
    checked(rows={"train": users}, seed=seed, alpha=ALPHA, signal="additive")
    world = AmazonWorld(users, max(5 * users, 400), min(max(users // 20, 12), 2000), seed, ALPHA)
    with new_folder(out_folder) as folder:
        reviews, products = (
            _write(folder / name, make, total, unit, at_once, threads) for name, make, total, unit, at_once in (
                ("reviews_Books.json", world.reviews, users, "users", USERS_AT_ONCE),
                ("meta_Books.json", world.metadata, world.items, "products", ITEMS_AT_ONCE)))
    return {"users": users, "reviews": reviews, "items": world.items, "products": products,
            "categories": world.categories}


def _write(path: Path, make: Callable[[int, int], tuple[bytes, int]], total: int, unit: str, at_once: int,
           threads: int | None) -> int:
    """How many lines the file now has that `make(first, end)` gives, `at_once` of `total` at a time."""
    parts = [(start, min(start + at_once, total)) for start in range(0, total, at_once)]
    lines = 0
    with Progress(f"synthesizing {path.name}", total=total, unit=unit) as bar, open(path, "wb") as file:
        for (first, end), (text, count) in zip(parts, in_order(lambda part: make(*part), parts, threads), strict=True):
            file.write(text)
            lines += count
            bar.advance(end - first)
    return lines


class AmazonWorld:
    """Parts of both files; each is a pure function of the seed and its index.

    The items of a category are numbered one after another: item k of category c is c · (items of a category) + k.
    """

    def __init__(self, users: int, items: int, categories: int, seed: int, alpha: float) -> None:
        self.users, self.categories, self.seed = users, categories, seed
        self.size = max(items // categories, 4)
        self.items = self.size * categories
        self.category_law, self.item_law = power_law(categories, 0.6), power_law(self.size, alpha)

    def histories(self, first: int, end: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """User, item and day of all events of the users first … end−1, user by user in the order of time."""
        generator = chunk_generator(self.seed, "amazon histories", first)
        count = end - first
        reads = generator.random(count) < READERS
        events = np.where(reads, 20 + generator.exponential(39, count), 1 + generator.geometric(0.35, count))
        events = np.minimum(events.astype(np.int64), np.where(reads, MOST_EVENTS, 19))
        interests = self.category_law.draw(generator, count * INTERESTS).astype(np.int64).reshape(count, INTERESTS)
        latest = np.full((count, INTERESTS), -1)
        current = generator.integers(0, INTERESTS, count)
        chosen = np.empty((count, int(events.max())), np.int64)
        every = np.arange(count)
        for index in range(chosen.shape[1]):
            moves = generator.random(count) >= STAYS
            current = np.where(moves, generator.integers(0, INTERESTS, count), current)
            before, fresh = latest[every, current], self.item_law.draw(generator, count).astype(np.int64)
            follows = (generator.random(count) < SEQUEL) & (before >= 0)
            item = np.where(follows, (before + 1) % self.size, fresh)
            category = interests[every, current]
            explores = generator.random(count) < EXPLORES
            elsewhere = self.category_law.draw(generator, count).astype(np.int64)
            latest[every, current] = np.where(explores, before, item)
            chosen[:, index] = np.where(explores, elsewhere, category) * self.size + item
        gaps = generator.geometric(0.12, chosen.shape) - 1
        start = generator.integers(FIRST_DAY, LAST_DAY - 700, count)
        day = np.minimum(start[:, None] + np.cumsum(gaps, axis=1), LAST_DAY)
        held = np.arange(chosen.shape[1]) < events[:, None]
        return np.repeat(every + first, events), chosen[held], day[held]

    def reviews(self, first: int, end: int) -> tuple[bytes, int]:
        """Lines of the users first … end−1, in no order; how many."""
        user, item, day = self.histories(first, end)
        generator = chunk_generator(self.seed, "amazon reviews", first)
        order = generator.permutation(len(user))
        again = order[generator.random(len(order)) < REPEATED]
        order = np.concatenate([order, again])
        person, product = self.person(user[order]), self.product(item[order])
        stars, words = generator.integers(1, 6, len(order)), generator.integers(0, len(WORDS), (len(order), 5))
        lines = []
        for index, (who, what, when) in enumerate(zip(person, product, day[order].tolist(), strict=True)):
            text = " ".join(WORDS[word] for word in words[index])
            review = {"reviewerID": who, "asin": what, "reviewerName": f"{text[:9]} \"{who[-3:]}\"",
                      "helpful": [0, int(stars[index])], "reviewText": f"{text}.\nI liked it.",
                      "overall": float(stars[index]), "summary": text[:20], "unixReviewTime": when * DAY,
                      "reviewTime": _date(when)}
            if stars[index] == 1:
                del review["reviewerName"]
            lines.append(json.dumps(review))
        return ("\n".join(lines) + "\n").encode(), len(lines)

    def metadata(self, first: int, end: int) -> tuple[bytes, int]:
        """Lines of the items first … end−1; how many."""
        item = np.arange(first, end)
        kind = hidden_bits(self.seed, "amazon metadata", item) % np.uint64(100)
        bits = hidden_bits(self.seed, "amazon titles", item)
        lines = []
        for number, asin, quirk, title_bits in zip(item.tolist(), self.product(item), kind.tolist(), bits.tolist(),
                                                   strict=True):
            if quirk == 0:  # a product that the file lacks
                continue
            title = " ".join(WORDS[title_bits >> (5 * word) & 15] for word in range(4))
            product = {"asin": asin, "salesRank": {"Books": number + 1},
                       "imUrl": f"http://ecx.images-amazon.com/images/I/{asin}.jpg",
                       "categories": [["Books", self.category_name(number // self.size)]], "title": title}
            if quirk == 1:
                del product["categories"]
            elif quirk == 2:
                product["categories"] = [[]]
            elif quirk < 20:
                product["categories"].append(["Books", "Literature & Fiction"])
            if quirk % 3 == 0:
                product |= {"price": round(1 + number % 97 / 3, 2), "related": {"also_bought": [asin, "0000000000"]}}
            if quirk == 99:
                product["description"] = "see 'categories': [['Books', 'A trap']] and {\"asin\": \"1\"}"
            lines.append(repr(product))
        return ("\n".join(lines) + "\n").encode() if lines else b"", len(lines)

    def person(self, user: np.ndarray) -> list[str]:
        return [f"A{number:08X}{user_:05X}" for number, user_ in zip(
            hidden_hash(self.seed, "amazon users", user).tolist(), (user & 0xFFFFF).tolist(), strict=True)]

    def product(self, item: np.ndarray) -> list[str]:
        return [f"{number:010d}" for number in hidden_hash(self.seed, "amazon items", item).tolist()]

    def category_name(self, category: int) -> str:
        return f"Children's Books {category}" if category % 7 == 0 else f"Subject {category}"


def _date(day: int) -> str:
    date = datetime.date(1970, 1, 1) + datetime.timedelta(days=day)
    return f"{date.month:02d} {date.day}, {date.year}"
