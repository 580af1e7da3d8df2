def by_row(engine, table) -> list:
    """The values of column `x`, in the order of column `row`."""
    return [row["x"] for row in sorted(engine.rows(table), key=lambda row: row["row"])]
