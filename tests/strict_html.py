"""HTML read strictly: every element closed in order, and nothing loaded from anywhere."""

from __future__ import annotations

from html.parser import HTMLParser


class Strict(HTMLParser):
    """Collects tags, attributes and text, and insists that every element is closed in order."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def parsed(page: str) -> Strict:
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def stands_alone(page: str) -> Strict:
    """The parsed page, which runs no script and loads nothing."""
    found = parsed(page)
    assert not found.tags & {"script", "link", "img", "iframe", "object"}
    assert not [name for name, _ in found.attributes if name in {"src", "href", "srcset"} or name.startswith("on")]
    assert "url(" not in page
    assert "@import" not in page
    return found
