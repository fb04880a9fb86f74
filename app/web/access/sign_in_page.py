"""The page that asks for a server's key: whole in itself, as nothing else is served before the key is known.

Works without scripts. Its colours are those of `assets/css/tokens.css`. Knows nothing of keys.
"""

from html import escape
from pathlib import Path
from urllib.parse import quote, urlsplit

SIGN_IN_PATH = "/sign-in"
# The fields of the form.
KEY_FIELD, NEXT_FIELD = "key", "next"

_ICON_FILE = Path(__file__).resolve().parents[3] / "assets" / "icons" / "quest-chat.svg"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Sign in – Quest Chat</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<!-- With no-referrer a browser would not say of the form that it comes from here. -->
<meta name="referrer" content="same-origin">
<link rel="icon" href="data:image/svg+xml,{icon}">
<style>
:root {{
  --text: #1c2530; --quiet: #526075; --line: #dfe4ea; --edge: #7d8a9c; --paper: #f6f7f9; --card: #ffffff;
  --accent: #0369a1; --button: #0369a1; --bad: #b91c1c;
}}
@media (prefers-color-scheme: dark) {{
  :root {{
    --text: #e6ebf2; --quiet: #a3b1c6; --line: #26324a; --edge: #76849a; --paper: #0b1220;
    --card: #111a2c; --accent: #5cc2f7; --button: #0b72ad; --bad: #fb8585;
  }}
}}
* {{ box-sizing: border-box; }}
body {{
  margin: 0; min-height: 100vh; min-height: 100dvh; display: grid; place-items: center; padding: 16px;
  background: var(--paper); color: var(--text);
  font: 16px/1.5 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}}
main {{
  width: 100%; max-width: 400px; padding: 24px; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px;
}}
h1 {{ margin: 0 0 4px; font-size: 20px; font-weight: 600; display: flex; align-items: center; gap: 10px; }}
h1 img {{ width: 26px; height: 26px; }}
p {{ margin: 0 0 20px; color: var(--quiet); font-size: 14px; }}
label {{ display: block; margin-bottom: 6px; font-size: 14px; font-weight: 500; }}
input {{
  width: 100%; height: 44px; padding: 0 12px; font: 16px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace;
  color: inherit; background: var(--paper); border: 1px solid var(--edge); border-radius: 6px;
}}
input[aria-invalid] {{ border-color: var(--bad); }}
.error {{ margin: 8px 0 0; color: var(--bad); }}
button {{
  width: 100%; height: 44px; margin-top: 16px; font: inherit; font-weight: 500; color: white; cursor: pointer;
  background: var(--button); border: 0; border-radius: 6px;
}}
button:hover {{ filter: brightness(1.1); }}
:focus-visible {{ outline: 2px solid var(--accent); outline-offset: 2px; }}
</style>
</head>
<body>
<main>
<h1><img src="data:image/svg+xml,{icon}" alt="">Quest Chat</h1>
<p>This server asks for its key once. Unless its owner has chosen one, its terminal showed it at the first start.</p>
<form method="post" action="{action}">
<input type="hidden" name="{next_field}" value="{next}">
<label for="key">Key</label>
<input id="key" name="{key_field}" type="password" required autofocus autocomplete="current-password"
 autocapitalize="none" spellcheck="false" maxlength="512"{invalid}>
{error}<button type="submit">Sign in</button>
</form>
</main>
</body>
</html>
"""


def sign_in_page(next_address: str, error: str = "") -> str:
    """The page as HTML.

    Args:
        next_address: where to go once signed in, as `own_address` gives it.
        error: a sentence about the last try; "" for none.
    """
    return _PAGE.format(
        icon=quote(_ICON_FILE.read_text(encoding="utf-8")),
        action=SIGN_IN_PATH,
        key_field=KEY_FIELD,
        next_field=NEXT_FIELD,
        next=escape(next_address),
        invalid=' aria-invalid="true" aria-describedby="error"' if error else "",
        error=f'<p class="error" id="error" role="alert">{escape(error)}</p>\n' if error else "",
    )


def own_address(address: str) -> str:
    """`address` if it is a path of this server, with or without a query; else that of the page.

    Nobody is led elsewhere by a link to the sign-in page.
    """
    # Browsers take a backslash for a slash, and leave out tabs and line breaks: //evil.example would be made of both.
    is_plain = address.isascii() and address.isprintable() and "\\" not in address and " " not in address
    if not is_plain or not address.startswith("/") or address.startswith("//"):
        return "/"
    try:
        parts = urlsplit(address)
    except ValueError:
        return "/"
    is_own = not parts.scheme and not parts.netloc and parts.path != SIGN_IN_PATH
    return address if is_own else "/"
