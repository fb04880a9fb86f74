"""Markup that messages of the chat are made of: components of their own, and JSON in attributes."""

import html
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from app.evidence.citation import EvidencePassage

# Of the passages found before an answer: more would push the answer out of sight.
_SHOWN_PASSAGES = 3
_PASSAGE_CHARACTERS = 600


def passages_json(passages: Sequence[EvidencePassage]) -> list[dict[str, Any]]:
    return [asdict(one) | {"text": one.text[:_PASSAGE_CHARACTERS]} for one in passages[:_SHOWN_PASSAGES]]


def json_attribute(value: Any) -> str:
    return html.escape(json.dumps(value, ensure_ascii=False))


def html_content(markup: str) -> dict[str, Any]:
    # The wire form of a `gr.HTML` in a message. Building the component anew for each earlier answer at each token
    # costs more than the answer's own text.
    return {
        "type": "component",
        "component": "html",
        "value": markup,
        "constructor_args": {},
        "props": {"html_template": "${value}", "css_template": "", "js_on_load": None, "apply_default_css": False},
    }
