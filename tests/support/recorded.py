"""What a database of verdicts holds."""

import sqlite3

#: Three joints on a board's picture of 64 px.
PADS = "name,x,y,width,height,type\nR1.1,0,0,16,16,R0603\nR1.2,20,0,16,16,R0603\nU1.1,0,20,16,20,SO8\n"


def rows(database, table="joints"):
    connection = sqlite3.connect(database, timeout=300)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY rowid")]
    finally:
        connection.close()


def without_time(found):
    return sorted(sorted((key, str(value)) for key, value in row.items() if key != "time") for row in found)
