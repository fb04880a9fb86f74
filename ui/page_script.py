"""JavaScript that Gradio runs for an event: calls of the page's own modules in `assets/js/`."""

from app.web.server import PAGE_FILES_PATH


def call_script(module: str, function: str) -> str:
    """A call of `function` with the values of the event's inputs; what it returns takes their place.

    It imports the module by itself, because Gradio puts the page's scripts in only while the page is already running.
    """
    return f"""async (...values) => {{
  const script = new URL("{PAGE_FILES_PATH}/js/{module}.js", document.baseURI);
  return (await import(script)).{function}(...values);
}}"""


# For events whose first input is the tab's conversation, and which may come before the server has opened it.
WITH_CONVERSATION = call_script("chat/conversation", "withConversation")
# The same for events that act in the conversation the tab shows, or leave it.
WITH_PRESENT_CONVERSATION = call_script("chat/conversation", "withPresentConversation")
