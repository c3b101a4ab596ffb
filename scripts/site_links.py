"""A hook of mkdocs: a link from docs/ to a file of the repository becomes the file's name, or a link to the repository.

Pages link to examples and sources as they are beside them in a checkout. The site has pages alone; with `repo_url` in mkdocs.yml, or
REPO_URL in the environment, the links lead there.
"""

from __future__ import annotations

import os
import posixpath
import re
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Called by mkdocs for each page, before it is rendered."""
    folder = posixpath.dirname(page.file.src_uri)
    repository = os.environ.get("REPO_URL") or config.repo_url or ""
    return outside_links(markdown, folder, repository)


def outside_links(markdown: str, folder: str, repository: str) -> str:
    """The page with the links that leave docs/ replaced; `folder` is the page's below docs."""

    def replaced(match: re.Match[str]) -> str:
        text, target = match[1], match[2]
        path = posixpath.normpath(posixpath.join("docs", folder, target))
        if ":" in target or path.startswith("docs/"):
            return match[0]
        if repository:
            return f"[{text}]({repository.rstrip('/')}/blob/main/{path})"
        return text if text.strip("`") == path else f"{text} (`{path}`)"

    return _LINK.sub(replaced, markdown)
