"""The explorer as one HTML page that needs neither a kernel nor a network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["static_page"]

# Ends a script element, and starts a comment in one, inside a text.
_ESCAPES = (("</", "<\\/"), ("<!--", "<\\!--"))

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body {{ margin: 12px; background: #fff; }}
{style}</style>
</head>
<body>
<div id="explorer"></div>
<script type="application/json" id="state">{state}</script>
<script type="module">
{script}
const state = JSON.parse(document.getElementById("state").textContent);
const model = {{ get: (name) => state[name], set() {{}}, save_changes() {{}}, send() {{}},
  on() {{}}, off() {{}}, frozen: true }};
view.render({{ model, el: document.getElementById("explorer") }});
</script>
</body>
</html>
"""


def static_page(state: Mapping[str, Any], script: str, style: str) -> str:
    """One HTML page with the explorer's state, script and style in it.

    Neurons can still be looked at; nothing can be recomputed, and the page says so.

    Args:
        state: the explorer's state, plain values.
        script: the view, a module that ends in ``export default view;``.
        style: its style sheet.

    Returns:
        The page; it asks for no other file.

    Raises:
        ValueError: a script of another form.

    Example:
        >>> from carelab.show.explorer.pages import static_page
        >>> page = static_page({"a": "</script>"}, "const view = {}; export default view;", "")
        >>> page.count("</script>")
        2
    """
    body, found, rest = script.rpartition("export default view;")
    if not found or rest.strip():
        raise ValueError("script: has no last line 'export default view;'; allowed: the view")
    text = json.dumps(state, ensure_ascii=False, allow_nan=False)
    for wrong, right in _ESCAPES:
        text = text.replace(wrong, right)
    scene = state.get("scene", {})
    title = str(scene.get("title", "explorer")) if isinstance(scene, Mapping) else "explorer"
    safe = title.replace("&", "&amp;").replace("<", "&lt;")
    return _PAGE.format(title=safe, style=style, state=text, script=body)
