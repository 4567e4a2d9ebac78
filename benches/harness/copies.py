"""Copies of stored calls and events under new numbers, for stores that are larger than was delivered."""


def reserve_ids(cluster, database, calls):
    """The number after which so many ids of calls are free: the program hands out none of them."""
    last = int(cluster.value(f"select setval('call_ids', nextval('call_ids') + {calls})", database))
    return last - calls


def columns(cluster, database, table):
    """(name, type) of each column of a table."""
    return cluster.query(
        f"""select column_name, data_type from information_schema.columns
            where table_schema = 'public' and table_name = '{table}' order by ordinal_position""",
        database,
    )


def insertion(cluster, database, table, values, time, source):
    """The statement that inserts copies of the rows `pattern` of a source.

    `values` are the expressions of the columns that differ between copies; `time` makes the
    expression of a time from its column and its name; the other columns are copied, the times within
    `attempts` too.
    """
    names, copied = [], []
    for name, kind in columns(cluster, database, table):
        column = f'pattern."{name}"'
        if name in values:
            column = values[name]
        elif kind == "timestamp with time zone":
            column = time(column, name)
        names.append(f'"{name}"')
        copied.append(column)
    return f"insert into {table} ({', '.join(names)}) select {', '.join(copied)} {source}"
