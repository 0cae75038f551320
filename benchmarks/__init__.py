"""Benchmarks: convcore beside other libraries, each in a process of its own.

::

    problems.py   suites of rows.py        report.py    command line, tables, files
    case.py       one measurement:         render.py    the text of a table
      windows.py  elementwise.py
        |                                      |
        v                                      v
    peers/        one library a file  <--  measure.py   A B A B between processes
        ^                                      |
        +--- worker.py  <-- JSON lines --------+        roofline.py  machine.py

`python -m benchmarks.report --help` is where to start; README.md says the rest.
Nothing here is installed with the package.
"""
