"""Examples: programs that answer a question with pictures and numbers.

    borders   are pixels in the middle of an image over-represented in the output?

`python -m convcore.examples.borders` runs one; the pages in `docs/guides` explain them.
"""
