"""Pages are easy to read at first sight: their sentences are short."""

from __future__ import annotations

import pages
import pytest

README = 30
DOCS = 35
LIMITS = {page: README if page == "README.md" else DOCS for page in pages.PAGES}


@pytest.mark.parametrize("page", LIMITS)
def test_no_sentence_is_long(page):
    long = [sentence for sentence in pages.sentences(pages.prose(page)) if len(sentence.split()) > LIMITS[page]]
    assert not long, f"{page}: make two sentences of each"


def test_what_a_sentence_is(monkeypatch):
    page = """# A heading

One [link](a.md#long) is `a + b` (words, $x = 1$). Two:

    L = CE + R

| a | table |
- Three
  goes on;
    - four.

```python
five = 5
```
"""
    monkeypatch.setattr(pages, "text", lambda _: page)
    found = pages.sentences(pages.prose("page.md"))
    assert found == ["One link is code (words, formula).", "Two:", "- Three goes on;", "four."]
