"""Colours and fonts of the page, for Gradio's own components.

What is ours is styled in `assets/css/`, from the same variables, so that both follow light and dark together. Fonts
are those of the reader's system: the page works without a network, and asks nobody for a font.
"""

import gradio as gr

SYSTEM_FONTS = ("ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
MONOSPACE_FONTS = ("ui-monospace", "SF Mono", "Cascadia Mono", "Menlo", "Consolas", "monospace")


def quest_theme() -> gr.themes.Base:
    """Slate with one blue accent; flat panels with a thin line instead of shadows."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.sky,
        secondary_hue=gr.themes.colors.sky,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_md,
        spacing_size=gr.themes.sizes.spacing_md,
        text_size=gr.themes.sizes.text_md,
        # Plain strings are names of local fonts; a `GoogleFont` would be fetched.
        font=list(SYSTEM_FONTS),
        font_mono=list(MONOSPACE_FONTS),
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary_dark="*neutral_900",
        block_background_fill_dark="*neutral_900",
        block_border_width="1px",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_800",
        block_shadow="none",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        block_label_text_weight="500",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_text_color="white",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color_dark="white",
        border_color_accent="*primary_300",
        border_color_accent_dark="*primary_700",
        slider_color="*primary_600",
    )
