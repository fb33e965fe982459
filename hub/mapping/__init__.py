"""The mapping language: Bloblang-compatible, compiled to Python, exact.

    from hub.mapping import compile

    mapping = compile('root = this\nroot.total = this.price * this.count')
    mapped = mapping.run(batch)                 # a hub.record.Batch; failures are in mapped.errors

    compile("this.a + 1", kind="query").query({"a": 1})                      # 2
    compile("orders-${! @table }", kind="field").resolve(batch)              # a string, or one a record
    compile("root = content().uppercase()").query(Message(b"not json"))      # b"NOT JSON"

`compile` raises `ParseError` (line, column, what was expected; `pretty()` has a caret line). `Compiled` has
`run`, `run_indexed`, `query`, `message`, `resolve`, `values`, `tree`, `reads`, `writes`, `warnings`, `source_of`,
`project` and `source` (the generated Python). What a mapping may reach besides the record is its `Context`.
"""

from __future__ import annotations

from hub.mapping.compiled import Compiled, Outcome, compile
from hub.mapping.context import Context
from hub.mapping.reader import ParseError
from hub.mapping.state import Message
from hub.mapping.values import DELETE, NOTHING, EvaluationError

__all__ = [
    "DELETE",
    "NOTHING",
    "Compiled",
    "Context",
    "EvaluationError",
    "Message",
    "Outcome",
    "ParseError",
    "compile",
]
