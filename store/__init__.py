"""What the loop remembers: events, journal, state, DuckDB, vectors, blobs."""
