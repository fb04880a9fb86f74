"""How answers are made: attention, budget, sampling, instructions."""

import html
import json
import math
from typing import Any

import gradio as gr

from app.chat.answers.answer import AnswerOptions
from app.chat.presets import PRESETS, find_preset
from app.errors import UserFacingError
from app.settings import AppSettings
from ui.raw_html import raw_html

MIN_BUDGET_TOKENS = 128
MAX_BUDGET_TOKENS = 4096
MAX_ANSWER_TOKENS = 2048
CUSTOM = "custom"
_HEAD = (
    "<h2>Settings</h2>"
    '<button type="button" class="dialog-close" aria-label="Close the settings">✕</button>'
)
_BUDGET_LABEL = "Tokens looked at for each word"
_LONGEST_LABEL = "Longest answer, in tokens"
_TEMPERATURE_LABEL = "Variety"


class SettingsPanel:
    """The controls, in a dialog but for the preset, and the options that they stand for.

    Args:
        settings: what the program was started with; gives the first values.
    """

    def __init__(self, settings: AppSettings) -> None:
        defaults = AnswerOptions(attention=settings.attention, token_budget=settings.token_budget)
        # Beside the question, where `ui.chat.question_line` puts it.
        self.preset = gr.Radio(
            [(preset.name.capitalize(), preset.name) for preset in PRESETS] + [("Custom", CUSTOM)],
            value=preset_name(defaults.attention, defaults.token_budget),
            label="How much of the text the model looks at",
            container=False,
            elem_id="preset",
            render=False,
        )
        with gr.Column(elem_id="settings-panel", min_width=0):
            raw_html(_HEAD, js_on_load=None, elem_id="settings-head")
            raw_html(presets_markup(), js_on_load=None, elem_id="settings-presets")
            self._attention = gr.Radio(
                [
                    ("Everything while that is not slower, then what matters to it", "auto"),
                    ("What matters to it", "quest"),
                    ("Everything", "exact"),
                ],
                # What dense attention gives, "exact" gives too.
                value="exact" if defaults.attention == "dense" else defaults.attention,
                label="For each word, the model looks at",
                info="Quest chooses KV pages for each token. With everything, all pages are read; where that is "
                "faster, Quest drafts tokens ahead, and those that reading everything confirms stay.",
                elem_id="attention",
            )
            self._token_budget = gr.Slider(
                min(MIN_BUDGET_TOKENS, settings.token_budget),
                max(MAX_BUDGET_TOKENS, settings.token_budget),
                value=defaults.token_budget,
                step=settings.page_size,
                label=_BUDGET_LABEL,
                info="The token budget of Quest: what each KV head attends at a step.",
                elem_id="token-budget",
            )
            self._max_new_tokens = gr.Slider(
                16, MAX_ANSWER_TOKENS, value=defaults.max_new_tokens, step=16, label=_LONGEST_LABEL
            )
            self._temperature = gr.Slider(
                0,
                2,
                value=defaults.temperature,
                step=0.05,
                label=_TEMPERATURE_LABEL,
                info="The temperature. 0 always takes the likeliest word.",
            )
            self._top_p = gr.Slider(0.05, 1, value=defaults.top_p, step=0.05, label="Top-p")
            self._system_prompt = gr.Textbox(
                defaults.system_prompt, label="Instructions to the model", lines=3, max_lines=8
            )
        for slider in (self._token_budget, self._max_new_tokens, self._temperature, self._top_p):
            _pass_on_what_is_no_number(slider)
        # `input` is a person's doing only, so that the three controls never chase each other.
        # Gradio would drop a choice that is quicker than the one before.
        plain: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        plain["trigger_mode"] = "always_last"
        controls = [self._attention, self._token_budget]
        self.preset.input(None, [self.preset, *controls], controls, js=_apply_preset(), **plain)
        for control in controls:
            control.input(preset_name, controls, self.preset, **plain)
        # In the order of `options`' parameters.
        self.inputs = [
            self._attention,
            self._token_budget,
            self._max_new_tokens,
            self._temperature,
            self._top_p,
            self._system_prompt,
        ]


def _pass_on_what_is_no_number(slider: gr.Slider) -> None:
    """Gradio compares a value with the slider's ends, and fails over what is no number; `options` names it."""
    check_ends = slider.preprocess
    slider.preprocess = lambda payload: check_ends(payload) if _is_number(payload) else payload


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def presets_markup() -> str:
    """What each preset promises, and in small print what stands behind it."""
    promises = "".join(
        f"<dt>{html.escape(preset.title)}</dt><dd>{html.escape(preset.promise)}</dd>" for preset in PRESETS
    )
    losses = " ".join(html.escape(preset.small_print) for preset in PRESETS)
    return f"<dl>{promises}</dl><p>{losses} On novels, with the embedded model; see docs/evaluation.md.</p>"


def preset_name(attention: str, token_budget: float) -> str:
    """The preset that the two controls stand for."""
    preset = find_preset(attention, int(token_budget)) if _is_number(token_budget) else None
    return preset.name if preset else CUSTOM


def _apply_preset() -> str:
    """JavaScript: what the attention and budget controls become; "Custom" leaves them as they are.

    Done in the browser: an answer that is asked for right after a click must not be made with what was chosen before.
    """
    chosen = {preset.name: [preset.attention, preset.token_budget] for preset in PRESETS}
    return f"""(name, attention, budget) => {{
        const [chosen, tokens] = ({json.dumps(chosen)})[name] ?? [attention, budget];
        return [chosen, chosen === "exact" ? budget : tokens];
    }}"""


def options(
    attention: str,
    token_budget: float,
    max_new_tokens: float,
    temperature: float,
    top_p: float,
    system_prompt: str,
) -> AnswerOptions:
    """The answer options for the values of `SettingsPanel.inputs`.

    Raises:
        UserFacingError: for an emptied field, or whatever else is no number.
    """
    numbers = {
        _BUDGET_LABEL: token_budget,
        _LONGEST_LABEL: max_new_tokens,
        _TEMPERATURE_LABEL: temperature,
        "Top-p": top_p,
    }
    for label, value in numbers.items():
        if not _is_number(value):
            raise UserFacingError(f'"{label}" must be a number, not {value!r}. Change it in the settings.')
    return AnswerOptions(
        attention=attention,
        token_budget=int(token_budget),
        max_new_tokens=int(max_new_tokens),
        temperature=float(temperature),
        top_p=float(top_p),
        system_prompt=system_prompt or "",
    )
