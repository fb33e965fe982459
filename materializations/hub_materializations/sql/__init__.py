"""What all SQL materializations share: pure functions from a schema, options and the table there is to statements.

A dialect adds a table of its types and capabilities and a thin driver; see `hub_materializations.duckdb`.
"""
