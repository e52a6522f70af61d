"""docs/benchmarks.md and the tables of README.md, a file a part; `python -m bench.page` puts them together.

Pure functions of the records in bench/results: `section` (what all have in common), `answers` (the head), `peers`,
`ceiling`, `curves`, `encoder`, `runtime`, `app`, `stream`, `machines`, `readme`.
"""
